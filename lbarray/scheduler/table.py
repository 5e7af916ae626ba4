"""The rows of one node: who has each now and who had it before, and what a new membership changes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

from lbarray.scheduler.maglev import DEFAULT_SIZE, Weighted, build_table
from lbarray.values import RowChange

__all__ = ["NOBODY", "RowTable"]

#: Index that no worker has: a row that was never given.
NOBODY = 0xFFFF


class RowTable:
    """Rows by worker index.

    :param index: the stable index of every node that may ever be a worker.
    :ivar generation: how often the rows have changed.
    """

    def __init__(self, index: Mapping[str, int], size: int = DEFAULT_SIZE) -> None:
        self.size = size
        self.generation = 0
        self.workers: tuple[Weighted, ...] = ()
        self._index = dict(index)
        self._now = array("H", [NOBODY]) * size
        self._before = array("H", [NOBODY]) * size

    def update(self, workers: Sequence[Weighted]) -> list[RowChange]:
        """Give the rows to ``workers``; what changed. With nobody to give them to, nothing does."""
        wanted = tuple(sorted(workers, key=lambda worker: worker.name))
        if not wanted or wanted == self.workers:
            return []
        indices = [self._index[worker.name] for worker in wanted]
        now, before = self._now, self._before
        delta: list[RowChange] = []
        for row, place in enumerate(build_table(wanted, self.size)):
            index = indices[place]
            if now[row] != index:
                before[row] = now[row] if now[row] != NOBODY else index
                now[row] = index
                delta.append(RowChange(row, index, before[row]))
        self.workers = wanted
        self.generation += 1
        return delta

    def row(self, number: int) -> tuple[int, int]:
        """(worker now, worker before) by index."""
        return self._now[number], self._before[number]

    def shares(self) -> dict[int, int]:
        """How many rows each index has."""
        counted: dict[int, int] = {}
        for index in self._now:
            counted[index] = counted.get(index, 0) + 1
        return counted
