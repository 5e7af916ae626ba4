"""How a node's packets reach each worker: by its MAC address, or in a tunnel by way of a router."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.kernel.nexthop import NextHop
from lbarray.values import Address, NodeReport, WorkerTarget

__all__ = ["Reach", "in_one_segment"]


class Reach:
    """Looks up the first station on the way to each node.

    :param tunnels: how each node is reached where a router lies between: ``gue`` or ``ipip``.
    :param look: as :func:`lbarray.kernel.nexthop.next_hop`.
    """

    log = Logger()

    def __init__(self, *, node_name: str, tunnels: Mapping[str, str], look: Callable[[Address], NextHop]) -> None:
        self._node_name = node_name
        self._tunnels = dict(tunnels)
        self._look = look
        self._said: dict[str, str] = {}

    def target(self, report: NodeReport, index: int) -> WorkerTarget:
        """Where its packets go now. Its MAC is unknown while the router's is; ask again soon."""
        if report.name == self._node_name:
            return WorkerTarget(index, report.name, report.address, report.mac, local=True)
        try:
            hop = self._look(report.address)
        except SystemRefused as error:
            self._say(report.name, str(error))
            return WorkerTarget(index, report.name, report.address)
        if hop.direct:
            self._say(report.name, "in this segment")
            return WorkerTarget(index, report.name, report.address, report.mac)
        tunnel = self._tunnels[report.name]
        self._say(report.name, f"beyond a router, by {tunnel.upper()}")
        return WorkerTarget(index, report.name, report.address, hop.mac, tunnel=tunnel)

    def _say(self, name: str, how: str) -> None:
        if self._said.get(name) != how:
            self._said[name] = how
            self.log.info("packets to node {name}: {how}", name=name, how=how)


def in_one_segment(node_name: str) -> Reach:
    """For nodes that no router separates: each is reached by the MAC address that it tells."""
    return Reach(node_name=node_name, tunnels={}, look=lambda address: NextHop(direct=True, mac=b"", mtu=1500))
