"""VIPs that are announced: when, and what BIRD says of it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.failover.bird import BirdAnswer, Session, read_sessions
from lbarray.failover.routes import RENEW_S, RouteService
from lbarray.failover.tracking import Condition
from lbarray.kernel.journal import Journal
from lbarray.telemetry.counters import Counters

VIPS = [IPv4Address("192.0.2.100"), IPv4Address("192.0.2.101")]
WORKERS = Condition("workers")
DRAINING = Condition("draining")
GREETING = b"0001 BIRD 2.0.12 ready.\n"
PROTOCOLS = (
    b"2002-Name       Proto      Table      State  Since         Info\n"
    b"1002-device1    Device     ---        up     22:51:57.283  \n"
    b" lbarray    Direct     ---        up     22:51:57.283  \n"
    b" router     BGP        ---        up     22:51:58.310  Established   \n"
    b" second     BGP        ---        start  22:51:57.283  Active        Socket: Connection refused\n"
    b" third      BGP        ---        down   2026-11-24    \n"
    b"0000 \n"
)


class AnswerTests(SynchronousTestCase):
    """BIRD's lines."""

    def test_sessions(self) -> None:
        """BGP protocols, with their states, and no others."""
        answer = BirdAnswer()
        (greeting,) = answer.feed(GREETING)
        self.assertEqual(greeting, [(1, "BIRD 2.0.12 ready.")])
        (protocols,) = answer.feed(PROTOCOLS)
        sessions = read_sessions(protocols)
        self.assertEqual(
            sessions, [Session("router", "Established"), Session("second", "Active"), Session("third", "down")]
        )
        self.assertEqual([session.established for session in sessions], [True, False, False])

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.integers(1, 40), max_size=40))
    def test_in_pieces(self, cuts: list[int]) -> None:
        """However the socket cuts it."""
        answer, data, found = BirdAnswer(), GREETING + PROTOCOLS, []
        for cut in [*cuts, len(data)]:
            found += answer.feed(data[:cut])
            data = data[cut:]
        self.assertEqual(len(found), 2)

    def test_not_bird(self) -> None:
        """Another daemon on that socket is said to be one."""
        for said in (b"HTTP/1.1 200 OK\r\n", b" more\n", b"x" * (2 << 20)):
            self.assertRaises(ValueError, BirdAnswer().feed, said)

    def test_error(self) -> None:
        """An error of the daemon is its text."""
        (answer,) = BirdAnswer().feed(b"8007 Access denied\n")
        self.assertRaisesRegex(ValueError, "Access denied", read_sessions, answer)


class Reactor(Clock):
    """A clock; and a BIRD that answers as a test says.

    :ivar says: what it sends after the question; ``None``: nobody listens.
    """

    says: bytes | None = PROTOCOLS

    def connectUNIX(self, path: str, factory: Any, timeout: int) -> None:
        from twisted.internet.error import ConnectionRefusedError
        from twisted.internet.testing import StringTransport
        from twisted.python.failure import Failure

        if self.says is None:
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            return
        protocol = factory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        protocol.dataReceived(GREETING)
        assert protocol.transport.value() == b"show protocols\n"
        protocol.dataReceived(self.says)


class RouteServiceTests(SynchronousTestCase):
    """Conditions in, addresses out."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.held: dict[IPv4Interface | IPv6Interface, int] = {}
        self.refuse = False
        self.told: list[tuple[object, ...]] = []
        self.counters = Counters()
        self.made: list[str] = []
        self.service = RouteService(
            reactor=self.reactor,
            vips=VIPS,
            interface="lbarray",
            control=Path("/run/bird/bird.ctl"),
            journal=Journal(Path(self.mktemp()), {"dummy": self.made.remove}),
            counters=self.counters,
            changed=lambda: self.told.append(self.service.active),
            make=self.made.append,
            hold=self.hold,
            release=self.release,
        )
        self.service.startService()

    def hold(self, interface: str, vip: IPv4Interface | IPv6Interface) -> None:
        if self.refuse:
            raise SystemRefused(f"add {vip} to {interface}")
        self.held[vip] = self.held.get(vip, 0) + 1

    def release(self, interface: str, vip: IPv4Interface | IPv6Interface) -> None:
        self.held.pop(vip, None)

    def test_not_before_it_can_serve(self) -> None:
        """A node that starts announces nothing until there is a worker."""
        self.assertEqual(self.held, {})
        self.service.report(WORKERS, True)
        self.assertEqual({str(vip) for vip in self.held}, {"192.0.2.100/32", "192.0.2.101/32"})
        self.assertEqual(self.told, [tuple(VIPS)])

    def test_renewed(self) -> None:
        """What nobody renews goes by itself: so it is renewed."""
        self.service.report(WORKERS, True)
        before = dict(self.held)
        self.reactor.pump([RENEW_S] * 3)
        self.assertTrue(all(self.held[vip] == count + 3 for vip, count in before.items()))

    def test_withdrawn(self) -> None:
        """Any condition that fails withdraws at once; all must hold again."""
        self.service.report(WORKERS, True)
        self.service.report(DRAINING, False, "the node drains")
        self.assertEqual(self.held, {})
        self.reactor.advance(RENEW_S)
        self.assertEqual(self.held, {})
        self.service.report(WORKERS, False, "nobody accepts")
        self.service.report(DRAINING, True)
        self.assertEqual(self.service.status()["withheld"], {"workers": "nobody accepts"})
        self.service.report(WORKERS, True)
        self.assertEqual(len(self.held), 2)
        self.assertEqual(self.told, [tuple(VIPS), (), tuple(VIPS)])

    def test_stop(self) -> None:
        """A stopped node has withdrawn, removed its interface and left no timer."""
        self.service.report(WORKERS, True)
        self.service.stopService()
        self.assertEqual((self.held, self.made, self.reactor.getDelayedCalls()), ({}, [], []))

    def test_refused(self) -> None:
        """A kernel that will not is complained of once, and tried again."""
        self.refuse = True
        self.service.report(WORKERS, True)
        self.reactor.pump([RENEW_S] * 3)
        self.assertEqual(self.held, {})
        self.refuse = False
        self.reactor.advance(RENEW_S)
        self.assertEqual(len(self.held), 2)

    def test_sessions(self) -> None:
        """The daemon's sessions are known, and when there is none that is an error."""
        self.reactor.says = PROTOCOLS
        self.reactor.advance(5.0)
        sessions = self.service.status()["sessions"]
        self.assertEqual(sessions, {"router": "Established", "second": "Active", "third": "down"})
        self.assertEqual(self.counters.total("bgp_without_session"), 0)
        self.reactor.says = None
        self.reactor.pump([5.0] * 3)
        self.assertEqual(self.counters.total("bgp_without_session"), 1)
        self.assertIn("refused", str(self.service.status()["daemon"]))
