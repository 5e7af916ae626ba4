"""What several worker processes report, as if it were one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lbarray.telemetry.counters import Counters

__all__ = ["add_counters", "fold", "sum_balancing", "sum_pools", "sum_services"]

#: Of a back end's status, what adds up; the rest is the node process's own.
_OF_BACKENDS = ("outstanding", "requests", "failures", "idle", "ejected")
_OF_POOLS = ("outstanding", "idle", "queued", "requests", "retries")
#: What only grows: it stays when its process has gone.
_LASTING = {
    "services": ("accepted", "requests", "handshakes", "resumed"),
    "balancing": ("requests", "retries"),
    "pools": ("requests", "failures"),
}


def add_counters(counters: Counters, report: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Count what a process has counted since the report before.

    Both hold ``counters``: a list of (name, label, value).
    """
    known = {(name, label): value for name, label, value in before.get("counters", ())}
    for name, label, value in report.get("counters", ()):
        more = value - known.get((name, label), 0)
        if more > 0:
            counters.add(name, label, more)


def fold(gone: dict[str, Any], report: Mapping[str, Any]) -> None:
    """Add what lasts of the last report of a process that has gone to ``gone``, a report of all of these."""
    for part in ("services", "balancing"):
        _fold(gone.setdefault(part, {}), report.get(part, {}), _LASTING[part])
    for pool, members in report.get("pools", {}).items():
        _fold(gone.setdefault("pools", {}).setdefault(pool, {}), members, _LASTING["pools"])


def _fold(sums: dict[str, Any], values: Mapping[str, Any], keys: Sequence[str]) -> None:
    for name, value in values.items():
        own = sums.setdefault(name, {})
        for key in keys:
            if key in value:
                own[key] = own.get(key, 0) + value[key]


def sum_services(reports: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """The status of each service: numbers added, everything else as the first process says it."""
    whole: dict[str, object] = {}
    for report in reports:
        for name, service in report.get("services", {}).items():
            sums = whole.setdefault(name, {})
            assert isinstance(sums, dict)
            for key, value in service.items():
                if isinstance(value, bool) or not isinstance(value, int):
                    sums.setdefault(key, value)
                else:
                    sums[key] = sums.get(key, 0) + value
    return whole


def sum_pools(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    """Requests, failures, outstanding and idle of each back end."""
    whole: dict[str, dict[str, dict[str, int]]] = {}
    for report in reports:
        for pool, members in report.get("pools", {}).items():
            for name, member in members.items():
                sums = whole.setdefault(pool, {}).setdefault(name, dict.fromkeys(_OF_BACKENDS, 0))
                for key in _OF_BACKENDS:
                    sums[key] += member.get(key, 0)
    return whole


def sum_balancing(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Requests in hand, waiting, begun and repeated, and idle connections, of each pool."""
    whole: dict[str, dict[str, int]] = {}
    for report in reports:
        for name, pool in report.get("balancing", {}).items():
            sums = whole.setdefault(name, dict.fromkeys(_OF_POOLS, 0))
            for key in _OF_POOLS:
                sums[key] += pool.get(key, 0)
    return whole
