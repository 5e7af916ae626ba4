"""Which of two workers gets a new connection: the power of two choices (Mitzenmacher, 2001), as in ``bpf/choose.h``.

Workers say once in a while what they bear. What was given to each since then is counted, or all new connections would
go to whoever was the least loaded then: with reports a second old that is worse than not to choose at all
(``make bench ONLY=choice``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lbarray.scheduler.abi import COST_OF_ONE, MARGIN, MARGIN_SHIFT, Choice
from lbarray.scheduler.maglev import Weighted
from lbarray.values import NodeReport, PlaneService, ServiceId, WorkerCost

__all__ = ["Burdens", "choices", "costs"]

_MOST = 0xFFFFFFFF


def choices(services: Sequence[PlaneService], before: Mapping[ServiceId, Choice]) -> dict[ServiceId, Choice]:
    """How each service's connections find their workers.

    :param before: as it was until now. A service that chose among two and does so no more still has connections at the
        workers of their second rows.
    """
    found = {}
    for service in services:
        choice = before.get(service.id, Choice.ONE_ROW) and Choice.TWO_ROWS
        found[service.id] = Choice.LESS_LOADED if service.least_loaded else choice
    return found


def costs(
    workers: Sequence[Weighted], members: Sequence[NodeReport], index: Mapping[str, int]
) -> dict[int, WorkerCost]:
    """What each worker that has rows bears, by its index.

    Connections count by the weight that the rows have, which follows the use of processors, too: half the weight makes
    each connection twice as heavy.

    :param workers: those that have rows, with their weights; :param members: what they say.
    """
    loads = {report.name: report.load for report in members}
    found = {}
    for worker in workers:
        if worker.name in loads:
            load = loads[worker.name]
            each = round(COST_OF_ONE * sum(each.weight for each in workers) / len(workers) / worker.weight)
            each = max(1, min(_MOST, each))
            found[index[worker.name]] = WorkerCost((load.connections + load.accept_queue) * each, each)
    return found


class Burdens:
    """What workers bear, by index, and were given since they said so."""

    def __init__(self) -> None:
        self._costs: dict[int, WorkerCost] = {}
        self._given: dict[int, int] = {}

    def set(self, costs: Mapping[int, WorkerCost]) -> None:
        """They say so now."""
        self._costs = dict(costs)
        self._given = {}

    def give(self, index: int) -> None:
        """One more."""
        self._given[index] = self._given.get(index, 0) + 1

    def is_lighter(self, other: int, owner: int) -> bool:
        """Does ``other`` bear so much less than ``owner`` that it should get what is the owner's by its row?"""
        if other not in self._costs or owner not in self._costs:
            return False
        less, more = self._of(other), self._of(owner)
        return less + (less >> MARGIN_SHIFT) + MARGIN * COST_OF_ONE < more

    def _of(self, index: int) -> int:
        return self._costs[index].open + self._costs[index].each * self._given.get(index, 0)
