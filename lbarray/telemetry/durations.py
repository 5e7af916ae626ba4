"""How requests went, by service and route, and by back end: their durations and ends, as counters.

Counters, because those of several processes add up; histograms are made of them when somebody looks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

import attrs

from lbarray.telemetry.counters import Counters
from lbarray.telemetry.histograms import BUCKETS_S, Histogram

__all__ = [
    "BACKENDS",
    "MOST_ROUTES",
    "OTHER_ROUTES",
    "OWN_NAMES",
    "REQUESTS",
    "Durations",
    "Series",
    "backend_series",
    "durations_of",
    "ends_of",
    "service_durations",
]


@attrs.frozen
class Family:
    """The names of counters that mean something only together."""

    buckets: str
    total_us: str
    ends: str


#: By (service, route); they end as ``2xx`` and so on.
REQUESTS: Final = Family("request_duration_bucket", "request_duration_us", "responses")
#: By (pool, back end); they end as :class:`lbarray.values.Outcome` says.
BACKENDS: Final = Family("backend_duration_bucket", "backend_duration_us", "backend_outcomes")
#: Not shown one by one.
OWN_NAMES: Final = frozenset(name for family in (REQUESTS, BACKENDS) for name in attrs.astuple(family))
#: Routes of a service that have series of their own; those beyond share one, so that a monitor can bear them all.
MOST_ROUTES: Final = 200
OTHER_ROUTES: Final = "(other)"
_LAST: Final = len(BUCKETS_S)


class Series:
    """One histogram, and how often what end. On the path of every request: three additions."""

    __slots__ = ("_add", "_buckets", "_counts", "_ends", "_family", "_label", "_total_s")

    def __init__(self, counters: Counters, family: Family, one: str, two: str) -> None:
        self._add = counters.add
        self._family = family
        self._label = label = f"{one}/{two}"
        self._buckets = tuple(f"{label}/{place}" for place in range(_LAST + 1))
        self._counts = [0] * (_LAST + 1)
        self._total_s = 0.0
        self._ends: dict[str, int] = {}

    def observe(self, seconds: float, end: str) -> None:
        """One that took so long and ended like this."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._total_s += seconds
        ends = self._ends
        ends[end] = ends.get(end, 0) + 1

    def hand_over(self) -> None:
        """To the counters. What is less than a microsecond stays for the next time."""
        ends, self._ends = self._ends, {}
        if not ends:  # most, whenever one counter is read
            return
        add, family = self._add, self._family
        for place, count in enumerate(self._counts):
            if count:
                self._counts[place] = 0
                add(family.buckets, self._buckets[place], count)
        microseconds = int(self._total_s * 1e6)
        self._total_s -= microseconds / 1e6
        add(family.total_us, self._label, microseconds)
        for end, count in ends.items():
            add(family.ends, f"{self._label}/{end}", count)


def _series(counters: Counters, family: Family, one: str, two: str) -> Series:
    return counters.tally((family, one, two), lambda: Series(counters, family, one, two))


class Durations:
    """Counts the requests of one service, route by route."""

    __slots__ = ("_counters", "_routes", "_service")

    def __init__(self, counters: Counters, service: str) -> None:
        self._counters = counters
        self._service = service
        self._routes: dict[str, Series] = {}

    def observe(self, seconds: float, status: int, route: str = "") -> None:
        """One request that took so long, and ended with this status (499: its client had gone).

        :param route: the name of its route; empty where it came to none.
        """
        series = self._routes.get(route)
        if series is None:
            series = self._routes[route] = self._series(route)
        series.observe(seconds, _CLASSES.get(status // 100, "5xx"))

    def _series(self, route: str) -> Series:
        if len(self._routes) >= MOST_ROUTES and route:
            route = OTHER_ROUTES
        return _series(self._counters, REQUESTS, self._service, route)


_CLASSES: Final = {kind: f"{kind}xx" for kind in range(1, 6)}


def backend_series(counters: Counters, pool: str, backend: str) -> Series:
    """Counts the requests of one back end."""
    return _series(counters, BACKENDS, pool, backend)


def durations_of(counters: Counters, family: Family = REQUESTS) -> dict[tuple[str, str], Histogram]:
    """The durations by (service, route), or by (pool, back end)."""
    found: dict[tuple[str, str], Histogram] = {}
    for label, value in counters.by_label(family.buckets).items():
        key, _, place = label.rpartition("/")
        found.setdefault(_pair(key), Histogram()).counts[int(place)] += value
    for key, microseconds in counters.by_label(family.total_us).items():
        found.setdefault(_pair(key), Histogram()).total_s = microseconds / 1e6
    return found


def ends_of(counters: Counters, family: Family = REQUESTS) -> dict[tuple[str, str, str], int]:
    """How many ended how: by (service, route, class of status), or by (pool, back end, outcome)."""
    found = {}
    for label, value in counters.by_label(family.ends).items():
        key, _, end = label.rpartition("/")
        found[(*_pair(key), end)] = value
    return found


def service_durations(durations: Mapping[tuple[str, str], Histogram]) -> dict[str, Histogram]:
    """Those of a service's routes together."""
    found: dict[str, Histogram] = {}
    for (service, _), histogram in durations.items():
        found.setdefault(service, Histogram()).add(histogram.counts, histogram.total_s)
    return found


def _pair(key: str) -> tuple[str, str]:
    # Names of services and pools have no slash; routes are named by their paths.
    one, _, two = key.partition("/")
    return one, two
