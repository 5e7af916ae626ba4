"""What the console can see of a node: one dictionary, gathered from its parts when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from lbarray.console.actions import Actions
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.events import RecentEvents

__all__ = ["NodeView"]


@attrs.frozen(kw_only=True)
class NodeView:
    """The one source of manhole, API and tables.

    :ivar parts: what gives, for each key of the status, its value now.
    :ivar actions: what can be asked of the node and changed in it.
    :ivar events: what happened lately.
    """

    node: str
    array: str
    version: str
    uptime_s: Callable[[], float]
    counters: Counters
    parts: Callable[[], Mapping[str, Callable[[], object]]]
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
        counted: dict[str, object] = {}
        for name, label, value in self.counters:
            if label:
                by_label = counted.setdefault(name, {})
                assert isinstance(by_label, dict)
                by_label[label] = value
            else:
                counted[name] = value
        whole["counters"] = counted
        return whole
