"""What worker processes report, as if it were one; what those that have gone did is not forgotten."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lbarray.worker.processes.groups import Offered
from lbarray.worker.processes.process import WorkerProcess
from lbarray.worker.processes.sums import fold, sum_balancing, sum_pools, sum_services

__all__ = ["Reports", "row"]


def row(process: WorkerProcess, *, role: str, now: float) -> dict[str, object]:
    """One process as the console shows it.

    :param role: ``serving``, ``coming`` or ``leaving``.
    :param now: in the reactor's seconds.
    """
    return {
        "place": process.place,
        "pid": process.pid,
        "generation": process.generation,
        "ready": process.ready,
        "up_s": round(now - process.started_at, 1),
        "connections": process.report.get("connections", 0),
        "accepted": process.accepted,
        "cpu": process.report.get("cpu", 0.0),
        "lag_s": process.report.get("lag_s", 0.0),
        "memory": process.report.get("memory", 0),
        "role": role,
        "leaving": role == "leaving",
    }


class Reports:
    """The last reports of the processes that ``there`` gives."""

    def __init__(self, there: Callable[[], Sequence[WorkerProcess]]) -> None:
        self._there = there
        self._gone: dict[str, Any] = {}

    def gone(self, process: WorkerProcess) -> None:
        """It has ended."""
        fold(self._gone, process.report)
        process.report = {}

    def _all(self) -> list[Mapping[str, Any]]:
        return [*(process.report for process in self._there() if process.report), self._gone]

    @property
    def connections(self) -> int:
        """Open now."""
        return sum(report.get("connections", 0) for report in self._all())

    @property
    def requests_begun(self) -> int:
        """Requests since the start."""
        return sum(service.get("requests", 0) for each in self._all() for service in each.get("services", {}).values())

    @property
    def memo_octets(self) -> int:
        """Memory of the results of rewriting that are kept."""
        return sum(report.get("memo_octets", 0) for report in self._all())

    def services(self, offered: Sequence[Offered]) -> dict[str, object]:
        """The status of each of these services, in their order; of others nothing."""
        nothing_yet = {
            each.name: {"at": str(each.service_id), "connections": 0, "accepted": 0, "requests": 0, "tunnels": 0}
            for each in offered
        }
        sums = sum_services([*self._all(), {"services": nothing_yet}])
        return {each.name: sums[each.name] for each in offered}

    def pools(self) -> dict[str, dict[str, dict[str, int]]]:
        """What was done with each back end, by pool and name."""
        return sum_pools(self._all())

    def balancing(self) -> dict[str, dict[str, int]]:
        """What is in hand and waiting, by pool."""
        return sum_balancing(self._all())
