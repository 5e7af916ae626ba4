"""The rows of one node: who has each now and who had it before, and what a new membership changes."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence

from lbarray.scheduler.maglev import DEFAULT_SIZE, NOBODY, Weighted, build_table, merge_table

__all__ = ["NOBODY", "RowTable"]


class RowTable:
    """Rows by worker index.

    :param index: the stable index of every node that may ever be a worker.
    :param size: how many rows; prime.
    :ivar generation: how often the rows have changed.
    """

    def __init__(self, index: Mapping[str, int], size: int = DEFAULT_SIZE) -> None:
        self.size = size
        self.generation = 0
        self.workers: tuple[Weighted, ...] = ()
        self._index = dict(index)
        self._pairs = array("H", [NOBODY]) * (2 * size)
        self._counted: tuple[int, dict[int, int]] = (0, {NOBODY: size})

    def update(self, workers: Sequence[Weighted]) -> int:
        """Give the rows to ``workers``; how many changed hands. With nobody to give them to, none does."""
        wanted = tuple(sorted(workers, key=lambda worker: worker.name))
        if not wanted or wanted == self.workers:
            return 0
        indices = [self._index[worker.name] for worker in wanted]
        changed = merge_table(build_table(wanted, self.size), indices, self._pairs)
        self.workers = wanted
        self.generation += 1 if changed else 0
        return changed

    @property
    def pairs(self) -> bytes:
        """All rows as planes take them: worker now and worker before, unsigned 16 bits each, in the machine's order."""
        return self._pairs.tobytes()

    def row(self, number: int) -> tuple[int, int]:
        """(worker now, worker before) by index."""
        return self._pairs[2 * number], self._pairs[2 * number + 1]

    def shares(self) -> dict[int, int]:
        """How many rows each index has."""
        if self._counted[0] != self.generation:
            self._counted = (self.generation, dict(Counter(self._pairs[::2])))
        return self._counted[1]
