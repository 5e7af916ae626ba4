"""The service against the kernel: a veth pair in a network namespace would be needed for its sockets, so these
tests replace only what leaves the process: the wire, the frames and the interface's addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import cast
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover import service
from lbarray.failover.machine import State
from lbarray.failover.packet import Advertisement
from lbarray.failover.protocol import VrrpWire
from lbarray.failover.service import LINGER_S, FailoverService
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import Link
from lbarray.telemetry.counters import Counters

OWN, OTHER, VIP = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Interface("192.0.2.100/24")


class RecordingWire:
    """What is said instead of being sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.open_ = True
        self.waiting: list[Advertisement] = []
        self.heard = lambda advertisement, source: None

    def open(self) -> None:
        """Begin."""

    def close(self) -> None:
        self.open_ = False

    def send(self, advertisement: Advertisement) -> bool:
        self.sent.append(advertisement.priority)
        return True

    def doRead(self) -> None:
        while self.waiting:
            self.heard(self.waiting.pop(0), OTHER)


class ServiceTests(SynchronousTestCase):
    """When what the machine decides is done."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.elsewhere = 0.0
        self.held: set[object] = set()
        self.told: list[str] = []
        self.wire = RecordingWire()
        self.counters = Counters()

        def wire(**more: object) -> VrrpWire:
            self.wire.heard = more["heard"]  # type: ignore[assignment]
            return cast(VrrpWire, self.wire)

        def add(interface: str, vip: object, **more: object) -> None:
            self.held.add(vip)

        self.patch(service, "VrrpWire", wire)
        self.patch(service, "link", lambda name: Link(name, 7, b"\x02" + b"\0" * 5, 1500, True))
        self.patch(service, "addresses_of", lambda name: {OWN})
        self.patch(service, "packet_socket", lambda name: mock.Mock())
        self.patch(service, "vrrp_socket", lambda *arguments: mock.Mock())
        self.patch(service, "add_address", add)
        self.patch(service, "remove_address", lambda interface, vip: self.held.discard(vip))
        journal = Journal(Path(self.mktemp()), {"address": lambda *arguments: None})
        self.it = FailoverService(
            reactor=self.clock,
            interface="eth0",
            address=OWN,
            vips=[VIP],
            router_id=51,
            priority=200,
            interval_s=1.0,
            preempt=True,
            seconds=lambda: self.clock.seconds() + self.elsewhere,
            peers=[],
            counters=self.counters,
            journal=journal,
            became_active=lambda: self.told.append("active"),
            became_backup=lambda: self.told.append("backup"),
        )
        self.it.startService()

    def own(self) -> None:
        """Let the silence make us the owner."""
        self.clock.pump([0.25] * 16)
        self.assertEqual((self.told, self.held), (["active"], {VIP}))

    def hear(self, priority: int) -> None:
        self.wire.heard(Advertisement(51, priority, 100, (VIP.ip,)), OTHER)

    def test_stop_waits_for_the_successor(self) -> None:
        """The VIP stays while the service stops, until another node is heard."""
        self.own()
        stopped = self.it.stopService()
        assert isinstance(stopped, Deferred)
        self.clock.advance(0.5)
        self.assertNoResult(stopped)
        self.assertEqual((self.wire.sent[-1], self.held), (0, {VIP}))
        self.hear(50)
        self.successResultOf(stopped)
        self.assertEqual((self.held, self.told, self.wire.open_), (set(), ["active", "backup"], False))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def test_stop_of_the_last_node(self) -> None:
        """When nobody takes the VIP, stopping still ends, and the VIP is given up."""
        self.own()
        stopped = self.it.stopService()
        assert isinstance(stopped, Deferred)
        self.clock.pump([0.25] * 20)
        self.successResultOf(stopped)
        self.assertEqual((self.held, self.told), (set(), ["active", "backup"]))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def test_backup_stops_at_once(self) -> None:
        """Who owns nothing has nobody to wait for."""
        self.assertIsNone(self.it.stopService())
        self.assertFalse(self.wire.open_)

    def test_lingers(self) -> None:
        """The VIP goes when the successor is heard; forwarding goes on until neighbours know."""
        self.own()
        self.assertTrue(self.it.step_down())
        self.hear(50)
        self.assertEqual((self.held, self.told), (set(), ["active"]))
        self.clock.advance(LINGER_S)
        self.assertEqual(self.told, ["active", "backup"])

    def test_old_news_is_heard_first(self) -> None:
        """After a pause, advertisements that wait in the socket count before our own lateness does."""
        self.own()
        self.wire.waiting = [Advertisement(51, 250, 100, (VIP.ip,))]
        self.clock.advance(2.0)
        self.assertEqual((self.it.machine.state, self.it.machine.owner), (State.BACKUP, OTHER))

    def test_frozen_owner(self) -> None:
        """A process that stood still gives the VIP up before anything else, and says so."""
        self.own()
        said = len(self.wire.sent)
        self.clock.advance(30.0)
        self.assertEqual((self.held, len(self.wire.sent)), (set(), said))
        self.assertEqual(self.counters.get("vrrp_frozen"), 1)

    def test_a_set_clock_is_no_pause(self) -> None:
        """When the wall clock is set forward, timers come early; the owner stays the owner."""
        self.own()
        self.elsewhere = -3600.0
        self.clock.advance(3600.5)
        self.assertEqual((self.told, self.counters.get("vrrp_frozen")), (["active"], 0))

    def test_take_over(self) -> None:
        """A backup takes the VIP from its living owner by advertising more."""
        self.hear(220)
        self.assertTrue(self.it.take_over())
        self.assertEqual((self.wire.sent, self.held), ([221], {VIP}))
        self.assertFalse(self.it.take_over())
