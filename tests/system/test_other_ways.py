"""Connections outlive what happens to other nodes on the less usual ways too: by native XDP, beyond a router, over
IPv6, and where all of a client's connections go together. One order each, of ``test_second_chance``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lbarray.bpf.build import compile_program
from lbarray.testbed.connections import Held
from lbarray.testbed.nodes import NODES, VIP6, Array, HeldConnections
from tests.system import test_second_chance as orders

PASSING = Path(__file__).parent.parent.parent / "benchmarks" / "xdp_pass.bpf.c"
CONNECTIONS = 600
#: Many clients of one address each.
SOURCES = tuple(f"10.77.0.{number}" for number in range(101, 181))


class _NativeArray(Array):
    """What XDP sends back by a veth arrives only where the other end has a program too, and as it was on a wire."""

    def wire(self) -> None:
        passing = compile_program(PASSING, self.folder / "pass.o")
        for name in self.nodes:
            self.network.attach_at_switch(name, passing)
        self.client.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off")

    def __enter__(self) -> _NativeArray:
        super().__enter__()
        try:
            self.wire()
        except BaseException:
            self.close()
            raise
        return self


class NativeXdpTests(orders.OrderTestCase):
    """The program in the interfaces' driver."""

    def make(self, plane: str) -> Array:
        return _NativeArray(nodes=orders.FOUR, edit=orders._edit(plane))

    def test_native_xdp(self) -> None:
        """The same as within one segment, and large answers and uploads besides."""
        for order in orders.chosen(0):
            with self.subTest(order=order):
                self.run_order(order, "xdp", CONNECTIONS)

    def moved(self, changes: orders.Changes, first: Held) -> None:
        super().moved(changes, first)
        array = changes.array
        answers = array.ask(array.load(count=12, path="/large.bin", threads=2))
        self.assertEqual([answer for answer in answers if not answer.good], [])


class RoutedOrderTests(orders.OrderTestCase):
    """The node that is drained and the one that is added are beyond a router; clients speak IPv6, or go together."""

    tunnel = "gue"

    def make(self, plane: str) -> Array:
        nodes = {**NODES, "c": "10.78.0.3", "d": "10.78.1.4"}
        return Array(nodes=nodes, far=["c", "d"], edit=self.edit(plane), ipv6=True)

    def edit(self, plane: str) -> Callable[[str], str]:
        def edited(text: str) -> str:
            for name in ("c", "d"):
                text = text.replace(f"[array.nodes.{name}]\n", f'[array.nodes.{name}]\ntunnel = "{self.tunnel}"\n')
            if self.tunnel == "ipip":
                text = text.replace("[services.http]\n", '[services.http]\nhash = "client"\n')
            return orders._edit(plane)(text)

        return edited

    def open(self, array: Array, count: int) -> HeldConnections:
        if self.tunnel == "gue":
            return array.hold_connections(count, vip=VIP6, sources=())
        # XDP meets packets as they were on the wire.
        array.client.run("ethtool", "-K", "eth0", "tso", "off", "gso", "off")
        for source in SOURCES:
            array.client.run("ip", "addr", "add", f"{source}/24", "dev", "eth0", check=False)
        return array.hold_connections(count, sources=SOURCES)

    def test_gue(self) -> None:
        """Connections over IPv6, in GUE between IPv4 nodes, by tc."""
        for order in orders.chosen(1):
            with self.subTest(order=order):
                self.run_order(order, "tc", CONNECTIONS)

    def test_ipip_by_client(self) -> None:
        """All of a client's connections together, in IPIP, by generic XDP."""
        self.tunnel = "ipip"
        for order in orders.chosen(2):
            with self.subTest(order=order):
                self.run_order(order, "xdp-generic", CONNECTIONS)
