"""What differs between two configurations, key by key, and which of it a running node can take up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from lbarray.config.model import Config
from lbarray.config.problems import shown

__all__ = ["FIXED", "PROCESSES_FIXED", "Difference", "differences", "needing_restart"]

#: What a running node does not take up, and why; everything else it does. A key stands for all below it.
FIXED: Final = {
    "array.name": "it is part of every signature between the nodes",
    "array.key_file": "cookies, flows and signatures are made with it",
    "array.accepted_key_files": "each is read once, at the start",
    "array.interface": "sockets and the packet program are bound to it",
    "array.nodes": "the packet program and every node number the workers by it",
    "array.state_dir": "the journal and the sockets in it are in use",
    "failover.mode": "VRRP and BGP hold the VIPs in different ways",
    "failover.unicast": "every node has to change at once",
    "failover.unicast_min_ttl": "every node has to change at once",
    "failover.authentication": "every node has to change at once",
    "failover.detect_duplicates": "its sockets are opened at the start",
    "bgp": "the routing daemon follows the interface that is there",
    "membership.port": "every node has to change at once",
    "scheduler.plane": "changing the packet program loses what it remembers",
    "scheduler.table_size": "every node has to change at once",
    "console": "whoever reads this does so through it",
    "process": "privileges are given up at the start",
}
#: Why ``worker.processes`` is taken up from any number to any other, but not from 0 or to 0.
PROCESSES_FIXED: Final = "whether a node serves in its own process or by worker processes is settled at the start"
#: Of a node, what can change all the same.
LIVE_OF_NODES: Final = ("priority", "weight")


@attrs.frozen
class Difference:
    """One key that differs.

    :ivar key: its full path, such as ``pools.web.backends.w1.weight``.
    :ivar before: what stood there, as an operator writes it; empty for nothing. :ivar after: what stands there now.
    """

    key: str
    before: str
    after: str

    @property
    def fixed_because(self) -> str:
        """Why a running node cannot take it up; empty when it can."""
        section, _, rest = self.key.partition(".")
        first = rest.partition(".")[0].partition("[")[0]
        of_a_node = f"{section}.{first}" == "array.nodes" and self.key.count(".") == 3
        if of_a_node and self.key.rpartition(".")[2] in LIVE_OF_NODES:
            return ""
        return FIXED.get(section, "") or FIXED.get(f"{section}.{first}", "")

    @property
    def live(self) -> bool:
        """A running node can take it up."""
        return not self.fixed_because

    def __str__(self) -> str:
        if not self.before:
            return f"{self.key}: new, {self.after}"
        if not self.after:
            return f"{self.key}: gone, was {self.before}"
        return f"{self.key}: {self.before} becomes {self.after}"


def differences(old: Config, new: Config) -> list[Difference]:
    """Every key that differs, in the order of the file's sections."""
    return list(_walk("", old, new))


def needing_restart(found: list[Difference]) -> list[Difference]:
    """Those that a running node cannot take up."""
    return [difference for difference in found if not difference.live]


def _walk(path: str, old: Any, new: Any) -> Iterator[Difference]:
    if attrs.has(type(old)) and type(old) is type(new) and _is_table(old):
        for field in attrs.fields(type(old)):
            yield from _walk(_under(path, field.name), getattr(old, field.name), getattr(new, field.name))
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _walk(_under(path, key), old.get(key), new.get(key))
        if list(old) != list(new) and set(old) == set(new):
            yield Difference(path, ", ".join(old), ", ".join(new))
    elif _is_list_of_tables(old) and _is_list_of_tables(new):
        for place in range(max(len(old), len(new))):
            before = old[place] if place < len(old) else None
            after = new[place] if place < len(new) else None
            yield from _walk(f"{path}[{place}]", before, after)
    elif old != new:
        yield Difference(path, _text(old), _text(new))


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_table(value: Any) -> bool:
    """A section of the file, not a single value that happens to be a class (``host:port``)."""
    return type(value).__module__ != "lbarray.config.scalars"


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, tuple) and any(attrs.has(type(item)) and _is_table(item) for item in value)


def _text(value: Any) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, dict) or (attrs.has(type(value)) and _is_table(value)):
        return "a table"
    if isinstance(value, bool | int | float | str):
        return shown(value)
    return f'"{value}"'
