"""Orders to drain, from here and from there."""

from __future__ import annotations

from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.console.actions import Refused
from lbarray.membership.requests import ArrayRequests, RefusedThere
from lbarray.node.draining import LOOK_S, Draining
from lbarray.testing import MemoryChannel
from lbarray.values import Load, NodeReport


class Node:
    """What of a node draining needs."""

    def __init__(self, name: str, clock: Clock, channel: MemoryChannel, array: dict[str, Node]) -> None:
        self.node_name = name
        self.reactor = clock
        self.draining = False
        self.accepting = True
        self.feedback = SimpleNamespace(load=Load(connections=3))
        self.array = array
        self.config = SimpleNamespace(array=SimpleNamespace(nodes=array))
        self.membership = SimpleNamespace(
            requests=ArrayRequests(clock=clock, channel=channel),
            members=lambda: [node.report() for node in array.values()],
        )
        array[name] = self
        node: Any = self
        self.drainage = Draining(node)
        self.drainage.startService()

    def report(self) -> NodeReport:
        return NodeReport(
            name=self.node_name,
            address=IPv4Address("192.0.2.1"),
            accepting=self.accepting,
            draining=self.draining,
            load=self.feedback.load,
        )

    def drain(self, draining: bool) -> None:
        self.draining = draining


class DrainingTests(SynchronousTestCase):
    """Two nodes."""

    def setUp(self) -> None:
        self.clock = Clock()
        array: dict[str, Node] = {}
        self.a, self.b = (Node(channel.name, self.clock, channel, array) for channel in MemoryChannel.array("a", "b"))

    def order(self, name: str | None, draining: bool = True, *, force: bool = False) -> dict[str, object]:
        return self.successResultOf(self.a.drainage.order(name, draining, force))

    def test_own(self) -> None:
        """Without a name it is the node that is asked."""
        self.assertIn("node a takes no new clients", str(self.order(None)["said"]))
        self.assertTrue(self.a.draining)
        self.order("a", False)
        self.assertFalse(self.a.draining)

    def test_other(self) -> None:
        """Any node can have any other one drained, and serve again."""
        self.assertEqual(self.order("b")["node"], "b")
        self.assertTrue(self.b.draining)
        self.assertFalse(self.a.draining)
        self.order("b", False)
        self.assertFalse(self.b.draining)

    def test_stranger(self) -> None:
        """A name that the configuration does not have is refused with the nearest that it has."""
        error: Refused = self.assertRaises(Refused, self.a.drainage.order, "bb", True, False)
        self.assertIn('"b"', str(error))

    def test_the_last_one(self) -> None:
        """Who would leave nobody to take clients is not drained, unless that is what is wanted."""
        self.a.accepting = False
        failure = self.failureResultOf(self.a.drainage.order("b", True, False), RefusedThere)
        self.assertIn("--force", str(failure.value))
        self.assertFalse(self.b.draining)
        self.order("b", force=True)
        self.assertTrue(self.b.draining)

    def test_both(self) -> None:
        """Nor the second of two."""
        self.order("b")
        self.assertRaises(Refused, self.a.drainage.order, "a", True, False)

    def test_progress(self) -> None:
        """Every node knows of every other how much remains."""
        self.assertEqual(self.a.drainage.progress()["nodes"], {})
        self.order("b")
        self.assertEqual(self.a.drainage.progress()["nodes"], {"b": {"connections": 3, "empty": False}})
        self.b.feedback.load = Load()
        self.assertEqual(self.a.drainage.progress()["said"], "node b is empty")

    def test_says_when_it_is_empty(self) -> None:
        """Once, in the log of the node itself."""
        said: list[str] = []
        self.patch(self.b.drainage, "log", SimpleNamespace(info=lambda text, **_: said.append(text)))
        self.order("b")
        said.clear()
        self.clock.advance(LOOK_S)
        self.assertEqual(said, [])
        self.b.feedback.load = Load()
        self.clock.pump([LOOK_S] * 3)
        self.assertEqual(len(said), 1)
        self.assertIn("can be stopped", said[0])

    def test_nothing_is_left(self) -> None:
        """The end of draining, and of the node, ends the looking."""
        self.order("b")
        self.order("b", False)
        self.order("a")
        self.a.drainage.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """An order of another version is refused."""
        self.failureResultOf(self.a.membership.requests.ask("b", "drain", b"explode"), RefusedThere)
