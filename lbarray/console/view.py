"""What the console can see of a node: one dictionary, gathered from its parts when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from lbarray.console.actions import Actions
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import OWN_NAMES, durations_of, ends_of, service_durations
from lbarray.telemetry.events import RecentEvents
from lbarray.telemetry.histograms import Histogram

__all__ = ["NodeView"]


@attrs.frozen(kw_only=True)
class NodeView:
    """The one source of manhole, API and tables.

    :ivar parts: what gives, for each key of the status, its value now.
    :ivar measure: has the other processes of the node say how they are, for a status that is of this moment; a Deferred
        that fires soon and never fails, or ``None`` where there is nobody to ask.
    :ivar actions: what can be asked of the node and changed in it.
    :ivar events: what happened lately.
    """

    node: str
    array: str
    version: str
    uptime_s: Callable[[], float]
    counters: Counters
    parts: Callable[[], Mapping[str, Callable[[], object]]]
    measure: Callable[[], Deferred[Any] | None] = lambda: None
    actions: Actions = attrs.field(factory=Actions)
    events: RecentEvents = attrs.field(factory=RecentEvents)

    def status(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        whole: dict[str, object] = {
            "node": self.node,
            "array": self.array,
            "version": self.version,
            "uptime_s": round(self.uptime_s(), 1),
        }
        for key, part in self.parts().items():
            whole[key] = part()
        self._add_durations(whole)
        counted: dict[str, object] = {}
        for name, label, value in self.counters:
            if name in OWN_NAMES:
                continue
            if label:
                by_label = counted.setdefault(name, {})
                assert isinstance(by_label, dict)
                by_label[label] = value
            else:
                counted[name] = value
        whole["counters"] = counted
        return whole

    def _add_durations(self, whole: dict[str, object]) -> None:
        """The quantiles of each service and its routes, from the counters of all processes."""
        services = whole.get("services")
        if not isinstance(services, dict):
            return
        durations = durations_of(self.counters)
        for name, histogram in service_durations(durations).items():
            service = services.get(name)
            if isinstance(service, dict):
                service["latency_s"] = _quantiles(histogram)
                service["routes"] = {}
        errors: dict[tuple[str, str], int] = {}
        for (name, route, end), value in ends_of(self.counters).items():
            if end == "5xx":
                errors[name, route] = value
        for (name, route), histogram in durations.items():
            service = services.get(name)
            if isinstance(service, dict):
                service["routes"][route or "(none)"] = {
                    "requests": histogram.count,
                    "errors": errors.get((name, route), 0),
                    "latency_s": _quantiles(histogram),
                }


def _quantiles(histogram: Histogram) -> dict[str, float]:
    return {key: round(histogram.quantile(share), 6) for key, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
