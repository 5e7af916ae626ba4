"""What the console can see of a node: one dictionary, gathered from its parts when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from lbarray.telemetry.counters import Counters

__all__ = ["NodeView"]


@attrs.frozen(kw_only=True)
class NodeView:
    """The one source of manhole, JSON status and tables.

    :ivar parts: for each key of the status, what gives its value now.
    :ivar drain: ``drain(pool, back end, draining)``; :ivar step_down: hand the VIPs over.
    """

    node: str
    array: str
    version: str
    uptime_s: Callable[[], float]
    counters: Counters
    parts: Mapping[str, Callable[[], object]]
    drain: Callable[[str, str, bool], None]
    step_down: Callable[[], bool]
    drain_node: Callable[[bool], None]

    def status(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        whole: dict[str, object] = {
            "node": self.node,
            "array": self.array,
            "version": self.version,
            "uptime_s": round(self.uptime_s(), 1),
        }
        for key, part in self.parts.items():
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
