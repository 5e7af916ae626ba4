"""How a node's packets reach each worker: by its MAC address, or in a tunnel by way of a router."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.kernel.nexthop import NextHop
from lbarray.values import Address, NodeReport, WorkerTarget

__all__ = ["Reach", "in_one_segment"]


#: Seconds after which the way to each node is looked up once more, and while one of them is not resolved.
LOOK_AGAIN_S = 5.0
LOOK_SOON_S = 0.25


class Reach:
    """Knows the first station on the way to each node.

    A way is looked up when it is first asked for, and then by and by (:meth:`look_again`): asking the kernel takes a
    millisecond, and whoever asks for targets may be in the middle of a takeover.

    :param tunnels: how each node is reached where a router lies between: ``gue`` or ``ipip``.
    :param look: as :func:`lbarray.kernel.nexthop.next_hop`.
    """

    log = Logger()

    def __init__(self, *, node_name: str, tunnels: Mapping[str, str], look: Callable[[Address], NextHop]) -> None:
        self._node_name = node_name
        self._tunnels = dict(tunnels)
        self._look = look
        self._said: dict[str, str] = {}
        self._ways: dict[Address, NextHop | str] = {}  # or why there is none; the one looked up longest ago is first

    def target(self, report: NodeReport, index: int) -> WorkerTarget:
        """Where its packets go now. Its MAC is unknown while the router's is; ask again soon."""
        if report.name == self._node_name:
            return WorkerTarget(index, report.name, report.address, report.mac, local=True)
        hop = self._ways.get(report.address) or self._look_up(report.address)
        if isinstance(hop, str):
            self._say(report.name, hop)
            return WorkerTarget(index, report.name, report.address)
        if hop.direct:
            self._say(report.name, "in this segment")
            return WorkerTarget(index, report.name, report.address, report.mac)
        tunnel = self._tunnels[report.name]
        self._say(report.name, f"beyond a router, by {tunnel.upper()}")
        return WorkerTarget(index, report.name, report.address, hop.mac, tunnel=tunnel)

    def look_again(self) -> bool:
        """Look up what is not resolved, and the way that was looked up longest ago. Is any different now?"""
        due = self._unresolved() or list(self._ways)[:1]
        before = [self._ways.pop(address) for address in due]
        return before != [self._look_up(address) for address in due]

    @property
    def pause_s(self) -> float:
        """Seconds until it is time to look again."""
        return LOOK_SOON_S if self._unresolved() else LOOK_AGAIN_S / max(1, len(self._ways))

    def _unresolved(self) -> list[Address]:
        return [address for address, way in self._ways.items() if isinstance(way, str) or not (way.direct or way.mac)]

    def _look_up(self, address: Address) -> NextHop | str:
        way: NextHop | str
        try:
            way = self._look(address)
        except SystemRefused as error:
            way = str(error)
        self._ways[address] = way
        return way

    def _say(self, name: str, how: str) -> None:
        if self._said.get(name) != how:
            self._said[name] = how
            self.log.info("packets to node {name}: {how}", name=name, how=how)


def in_one_segment(node_name: str) -> Reach:
    """For nodes that no router separates: each is reached by the MAC address that it tells."""
    return Reach(node_name=node_name, tunnels={}, look=lambda address: NextHop(direct=True, mac=b"", mtu=1500))
