"""How requests went, service by service: their durations and statuses, as counters.

Counters, because those of several processes add up; a histogram is made of them when somebody looks.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from lbarray.telemetry.counters import Counters
from lbarray.telemetry.histograms import BUCKETS_S, Histogram

__all__ = ["OWN_NAMES", "Durations", "durations_of", "responses_of"]

_BUCKET, _SUM, _RESPONSES = "request_duration_bucket", "request_duration_us", "responses"
#: Counters that mean something only together: not shown one by one.
OWN_NAMES: Final = frozenset([_BUCKET, _SUM, _RESPONSES])
_LAST: Final = len(BUCKETS_S)


class Durations:
    """Counts the requests of one service. On the path of every request: three additions."""

    __slots__ = ("_add", "_buckets", "_classes", "_service")

    def __init__(self, counters: Counters, service: str) -> None:
        self._add = counters.add
        self._service = service
        self._buckets = tuple(f"{service}/{place}" for place in range(_LAST + 1))
        self._classes = {kind: f"{service}/{kind}xx" for kind in range(1, 6)}

    def observe(self, seconds: float, status: int) -> None:
        """One request that took so long, and ended with this status (499: its client had gone)."""
        add = self._add
        add(_BUCKET, self._buckets[bisect_left(BUCKETS_S, seconds)])
        add(_SUM, self._service, int(seconds * 1e6))
        add(_RESPONSES, self._classes.get(status // 100, self._service))


def durations_of(counters: Counters) -> dict[str, Histogram]:
    """The durations of each service."""
    found: dict[str, Histogram] = {}
    for label, value in counters.by_label(_BUCKET).items():
        service, _, place = label.rpartition("/")
        found.setdefault(service, Histogram()).counts[int(place)] += value
    for service, microseconds in counters.by_label(_SUM).items():
        found.setdefault(service, Histogram()).total_s = microseconds / 1e6
    return found


def responses_of(counters: Counters) -> dict[tuple[str, str], int]:
    """Responses by service and class of status (``2xx``)."""
    found = {}
    for label, value in counters.by_label(_RESPONSES).items():
        service, _, kind = label.rpartition("/")
        found[service, kind] = value
    return found
