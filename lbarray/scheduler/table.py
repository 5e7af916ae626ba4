"""The rows of one node: who has each now and who had it before, and what a new membership changes."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from lbarray.scheduler.maglev import DEFAULT_SIZE, NOBODY, Weighted, build_table, join_rows, merge_table

__all__ = ["NOBODY", "RowTable"]

#: For tables that name indices already, and nobody in some rows.
_EACH = array("H", range(NOBODY + 1))


class RowTable:
    """Rows by worker index.

    Each row remembers its last three owners that may still hold connections (second chance). A node that has just
    started learns them change by change; the one that it passes a packet to knows who came before itself.

    :param index: the stable index of every node that may ever be a worker.
    :param size: how many rows; prime.
    :ivar generation: how often the rows have changed.
    """

    def __init__(self, index: Mapping[str, int], size: int = DEFAULT_SIZE) -> None:
        self.size = size
        self.generation = 0
        self.workers: tuple[Weighted, ...] = ()
        self._index = dict(index)
        self._rows = array("H", [NOBODY]) * 4 * size
        self._counted: tuple[int, dict[int, int]] = (0, {NOBODY: size})

    def update(self, workers: Sequence[Weighted], dead: Collection[str] = ()) -> int:
        """Give the rows to ``workers``; how many changed, in any way. With nobody to give them to, none does.

        :param dead: nodes whose connections are gone, for they died or began anew: they are nobody's second chance.
        """
        gone = [self._index[name] for name in dead]
        wanted = tuple(sorted(workers, key=lambda worker: worker.name))
        if not wanted:
            wanted = self.workers
        if not wanted or (wanted == self.workers and not gone):
            return 0
        indices = [self._index[worker.name] for worker in wanted]
        changed = merge_table(build_table(wanted, self.size), indices, gone, self._rows)
        self.workers = wanted
        self.generation += 1 if changed else 0
        return changed

    def learn(self, rows: bytes, dead: Collection[str] = ()) -> bool:
        """Take the history of another node's rows for our own, which is a guess; whether anything changed.

        :param rows: as :attr:`rows` of a node with the same index and size.
        :param dead: as for :meth:`update`.
        :raises ValueError: they cannot be rows of this table.
        """
        theirs = self._checked(rows)
        if self.workers:
            merge_table(self._rows[::4], _EACH, [self._index[name] for name in dead], theirs)
        return self._become(theirs)

    def suppose(self, workers: Sequence[Weighted], since: bytes) -> bool:
        """While ``workers`` were apart from this node they had, as far as it can know, all rows among themselves. Of
        each row comes who has it now, then who of them had it, then its owners at ``since``; whether anything changed.

        :param since: :attr:`rows` of when the first of them was heard again.
        """
        supposed = array("H", since)
        indices = [self._index[worker.name] for worker in sorted(workers, key=lambda worker: worker.name)]
        merge_table(build_table(workers, self.size), indices, [], supposed)
        merge_table(self._rows[::4], _EACH, [], supposed)
        return self._become(supposed)

    def join(self, rows: bytes, dead: Collection[str] = ()) -> bool:
        """Take the history of a node that was apart from this one into our own; whether anything changed. Who has the
        rows now stays.

        :param rows: as for :meth:`learn`, and :param dead: as for :meth:`update`.
        :raises ValueError: they cannot be rows of this table.
        """
        theirs = self._checked(rows)
        gone = [self._index[name] for name in dead]
        joined = array("H", self._rows)
        join_rows(theirs, gone, joined)
        return self._become(joined)

    def _checked(self, rows: bytes) -> array[int]:
        theirs = array("H", rows)
        if len(theirs) != len(self._rows) or NOBODY in theirs[::4]:
            raise ValueError(f"{len(rows)} octets are not the rows of a table of {self.size}")
        if not set(theirs) <= {NOBODY, *self._index.values()}:
            raise ValueError("rows of a worker that is not in the configuration")
        return theirs

    def _become(self, rows: array[int]) -> bool:
        changed = rows != self._rows
        self._rows = rows
        self.generation += changed
        return changed

    @property
    def rows(self) -> bytes:
        """All rows as planes take them (:meth:`lbarray.interfaces.IForwardingPlane.apply`)."""
        return self._rows.tobytes()

    def row(self, number: int) -> tuple[int, ...]:
        """(worker now, worker before, and two before that) by index."""
        return tuple(self._rows[4 * number : 4 * number + 4])

    def shares(self) -> dict[int, int]:
        """How many rows each index has."""
        if self._counted[0] != self.generation:
            self._counted = (self.generation, dict(Counter(self._rows[::4])))
        return self._counted[1]
