"""Orders to weigh nodes, from here and from there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.console.actions import BadArgument, Refused
from lbarray.membership.requests import ArrayRequests, RefusedThere
from lbarray.node.weighing import Weighing
from lbarray.testing import MemoryChannel


class WeighingTests(SynchronousTestCase):
    """Two nodes, of 100 and 40."""

    def setUp(self) -> None:
        clock = Clock()
        nodes = {"a": SimpleNamespace(weight=100), "b": SimpleNamespace(weight=40)}
        self.told: list[str] = []
        self.requests: dict[str, ArrayRequests] = {}
        self.nodes: dict[str, Any] = {}
        made: dict[str, Weighing] = {}
        for channel in MemoryChannel.array("a", "b"):
            self.requests[channel.name] = ArrayRequests(clock=clock, channel=channel)
            node: Any = SimpleNamespace(
                node_name=channel.name, config=SimpleNamespace(array=SimpleNamespace(nodes=nodes))
            )
            changed = lambda name=channel.name: self.told.append(name)  # noqa: E731
            made[channel.name] = Weighing(node, self.requests[channel.name], changed)
            self.nodes[channel.name] = node
        self.a, self.b = made["a"], made["b"]

    def order(self, name: str | None, weight: int) -> dict[str, object]:
        return self.successResultOf(self.a.order(name, weight))

    def test_configured(self) -> None:
        """Without an order the configuration's weight holds, also when that changes."""
        self.assertEqual((self.a.weight, self.b.weight), (100, 40))
        self.nodes["a"].config.array.nodes["a"].weight = 70
        self.assertEqual(self.a.weight, 70)

    def test_own(self) -> None:
        """Without a name it is the node that is asked, and the others hear of it."""
        self.assertEqual(self.order(None, 30)["node"], "a")
        self.assertEqual((self.a.weight, self.b.weight), (30, 40))
        self.assertEqual(self.told, ["a"])

    def test_other(self) -> None:
        """Any node can change any other one's weight: that one tells all."""
        self.assertEqual(self.order("b", 1000)["said"], "node b has the weight 1000, on all nodes")
        self.assertEqual((self.a.weight, self.b.weight), (100, 1000))
        self.assertEqual(self.told, ["b"])

    def test_until_the_next_configuration(self) -> None:
        """What was ordered ends with a configuration that is taken up."""
        self.order("b", 7)
        self.b.forget()
        self.assertEqual(self.b.weight, 40)
        self.assertEqual(self.told, ["b", "b"])

    def test_stranger(self) -> None:
        """A name that the configuration does not have is refused with the nearest that it has."""
        error: Refused = self.assertRaises(Refused, self.a.order, "bb", 5)
        self.assertIn('"b"', str(error))

    def test_no_weight(self) -> None:
        """What the configuration would not accept is not accepted here; nothing changes."""
        for weight in (0, -1, 1001):
            error: BadArgument = self.assertRaises(BadArgument, self.a.order, "b", weight)
            self.assertIn("accepted: 1 to 1000", str(error))
        self.assertIn("drained", str(self.assertRaises(BadArgument, self.a.order, "b", 0)))
        for payload in (b"heavy", b"", b"0", b"9" * 10):
            self.failureResultOf(self.requests["a"].ask("b", "weigh", payload), RefusedThere)
        self.assertEqual(self.b.weight, 40)
