"""Moving VIPs on purpose: who does what when it is asked on any node."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.handover import BadRequest, HandoverRefused, Handovers
from lbarray.failover.service import FailoverService
from lbarray.values import Address, NodeReport
from tests.failover.test_router import OWN, SPEC, VIP

OTHER_VIP = IPv4Address("192.0.2.101")


class Channel:
    """What is said to the others."""

    def __init__(self) -> None:
        self.said: list[tuple[dict[str, Any], str | None]] = []
        self.deliver: Any = None

    def publish(self, topic: str, payload: bytes, to: str | None = None) -> None:
        self.said.append((json.loads(payload), to))

    def subscribe(self, topic: str, received: Any) -> None:
        self.deliver = received


class Machine:
    """What of a machine the requests look at."""

    def __init__(self) -> None:
        self.suspended = False
        self.owner: Address | None = IPv4Address("192.0.2.2")
        self.source = OWN


class Router:
    """A router that remembers what it was told."""

    def __init__(self, node: Node) -> None:
        self.spec = SPEC
        self.machine = Machine()
        self.tracker = type("T", (), {"failing": {"carrier": "no carrier"}})()
        self._node = node

    def take_over(self) -> bool:
        self._node.told.append("take over")
        return self._node.obeys

    def step_down(self) -> bool:
        self._node.told.append("step down")
        return True


class Node:
    """Failover of one node."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.obeys = True
        self.router = Router(self)
        self.routers = {"main": self.router}

    def routers_of(self, vip: Address | None) -> list[Router]:
        return [self.router] if vip in (None, VIP.ip) else []

    def step_down(self, vip: Address) -> None:
        self.router.step_down()


class HandoverTests(SynchronousTestCase):
    """Node ``a``; ``b`` owns the VIP, ``c`` lives, ``d`` does not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.channel = Channel()
        self.node = Node()
        self.owner = "b"
        self.it = Handovers(
            clock=self.clock,
            channel=self.channel,
            failover=cast(FailoverService, self.node),
            node_name="a",
            nodes=["a", "b", "c", "d"],
            members=self.members,
        )

    def members(self) -> list[NodeReport]:
        return [
            NodeReport(name, IPv4Address("192.0.2.1"), owned=(VIP.ip,) if name == self.owner else ())
            for name in ("a", "b", "c")
        ]

    def refused(self, vip: Address | None = None, to: str | None = None) -> str:
        error: HandoverRefused = self.assertRaises(HandoverRefused, self.it.request, vip, to)
        return str(error)

    def test_to_another(self) -> None:
        """Everybody is told; it is done when that node says that it owns the VIP."""
        done = self.it.request(to="c")
        self.assertEqual([(said["to"], said["vips"]) for said, _ in self.channel.said], [("c", [str(VIP.ip)])])
        self.clock.pump([0.02] * 5)
        self.assertNoResult(done)
        self.owner = "c"
        self.clock.pump([0.02] * 5)
        self.assertEqual(self.successResultOf(done)["said"], "192.0.2.100 moved to c")
        self.assertEqual(self.node.told, [])

    def test_to_ourselves(self) -> None:
        """Asked on the node that shall have it, that node takes it."""
        self.it.request(to="a")
        self.assertEqual(self.node.told, ["take over"])

    def test_to_the_next(self) -> None:
        """Without a name the owner steps down, wherever it is asked; whoever has it then will do."""
        done = self.it.request()
        self.assertEqual(self.node.told, ["step down"])
        self.owner = "c"
        self.clock.pump([0.02] * 5)
        self.assertEqual(self.successResultOf(done)["to"], ["c"])

    def test_between_owners(self) -> None:
        """It is not done while nobody owns the VIP: one has given it up, and the next one has not taken it yet."""
        done = self.it.request()
        self.owner = ""
        self.clock.pump([0.02] * 5)
        self.assertNoResult(done)
        self.owner = "c"
        self.clock.pump([0.02] * 5)
        self.assertEqual(self.successResultOf(done)["to"], ["c"])

    def test_asked_by_another(self) -> None:
        """A request of another node is carried out once, however often it arrives."""
        payload = json.dumps({"id": "x", "vips": [str(VIP.ip)], "to": "a"}).encode()
        for _ in range(3):
            self.channel.deliver("b", payload)
        self.assertEqual(self.node.told, ["take over"])
        self.assertEqual(self.channel.said, [])

    def test_unfit(self) -> None:
        """A node that may not own VIPs says why, to whoever asked."""
        self.node.router.machine.suspended = True
        self.channel.deliver("b", json.dumps({"id": "x", "vips": [str(VIP.ip)], "to": "a"}).encode())
        [(answer, to)] = self.channel.said
        self.assertEqual((answer["id"], to), ("x", "b"))
        self.assertIn("no carrier", answer["refused"])

    def test_refusal_arrives(self) -> None:
        """Whoever asked is told."""
        done = self.it.request(to="c")
        [(said, _)] = self.channel.said
        self.channel.deliver("c", json.dumps({"id": said["id"], "refused": "no carrier"}).encode())
        self.assertEqual(str(self.failureResultOf(done, HandoverRefused).value), "c: no carrier")

    def test_nobody_takes_it(self) -> None:
        """It fails in the end, and says what did not move."""
        done = self.it.request(to="c")
        self.clock.pump([0.05] * 200)
        self.assertIn("nobody took 192.0.2.100", str(self.failureResultOf(done, HandoverRefused).value))

    def test_what_cannot_be(self) -> None:
        """Unknown nodes and VIPs, dead nodes, and the node that has it, are told from each other."""
        self.assertIn("x is no node of this array; alive are a, b, c", self.refused(to="x"))
        self.assertIn("d is not alive", self.refused(to="d"))
        self.assertIn("b has it already", self.refused(to="b"))
        self.assertIn("no VIP 192.0.2.101", self.refused(vip=OTHER_VIP))

    def test_nonsense(self) -> None:
        """What cannot be read changes nothing and is counted."""
        for payload in (b"", b"{", b"[]", b'{"id": 1}', b'{"id": 1, "vips": ["x"]}', b'{"id": 1, "vips": 5}'):
            self.assertRaises(BadRequest, self.channel.deliver, "b", payload)
        self.assertEqual(self.node.told, [])
