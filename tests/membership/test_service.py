"""Nodes that hear each other, over a network in memory."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import attrs
from twisted.internet.defer import succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.membership.channel import ArrayChannel
from lbarray.membership.datagram import DatagramCodec
from lbarray.membership.service import MembershipService
from lbarray.telemetry.counters import Counters
from lbarray.testing import ChannelSuite, MemoryChannel
from lbarray.values import Load, NodeReport

SECRET = b"0123456789abcdef"


class Segment(Clock):
    """A clock whose UDP ports are joined: a datagram arrives at once.

    :ivar lost: of a datagram's destination: is it lost?
    :ivar recorded: every datagram that arrived: (source, destination, octets).
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[str, Any] = {}
        self.lost: Callable[[str], bool] = lambda destination: False
        self.recorded: list[tuple[str, str, bytes]] = []

    def listenUDP(self, port: int, protocol: Any, interface: str) -> Any:
        segment = self

        class Port:
            def write(self, datagram: bytes, addr: tuple[str, int]) -> None:
                segment.send(interface, addr[0], datagram)

            def stopListening(self) -> Any:
                del segment.ports[interface]
                return succeed(None)

        self.ports[interface] = protocol
        protocol.transport = Port()
        return protocol.transport

    def send(self, source: str, destination: str, datagram: bytes) -> None:
        if destination in self.ports and not self.lost(destination):
            self.recorded.append((source, destination, datagram))
            self.ports[destination].datagramReceived(datagram, (source, 4780))


@attrs.define
class Node:
    """One node's membership, and what it says of itself."""

    report: NodeReport
    segment: Segment
    service: MembershipService = attrs.field(init=False)
    counters: Counters = attrs.field(factory=Counters)

    def says(self) -> NodeReport:
        """What it says of itself now."""
        return self.report


def array(segment: Segment, *names: str, deaf: bool = False) -> list[Node]:
    """Running nodes of these names. ``deaf``: nothing arrives."""
    nodes = []
    segment.lost = lambda destination: deaf
    for number, name in enumerate(names, 1):
        report = NodeReport(name=name, address=IPv4Address(f"192.0.2.{number}"), accepting=True, incarnation=number)
        nodes.append(Node(report, segment))
    for node in nodes:
        node.service = MembershipService(
            reactor=segment,
            name=node.report.name,
            bind=node.report.address,
            port=4780,
            peers={peer.report.name: peer.report.address for peer in nodes if peer is not node},
            codec=DatagramCodec(secret=SECRET, array_name="shop"),
            interval_s=0.5,
            lost_after=4,
            report=node.says,
            counters=node.counters,
            wall_clock=segment.seconds,
        )
        node.service.startService()
    segment.advance(0.5)
    return nodes


class ServiceTests(SynchronousTestCase):
    """Heartbeats between services."""

    def setUp(self) -> None:
        self.segment = Segment()
        self.a, self.b = array(self.segment, "a", "b")

    def seen(self) -> list[str]:
        return [report.name for report in self.a.service.members()]

    def test_heard_anew(self) -> None:
        """Who hears a node again lets itself be heard at once, but not for each of many that come."""
        for service in (self.a.service, self.b.service):
            service.suspect("b" if service is self.a.service else "a", 0.0)
        self.assertEqual(self.seen(), ["a"])
        self.a.service.beat()
        self.assertEqual(self.seen(), ["a", "b"])
        sent = len(self.segment.recorded)
        for _ in range(10):
            self.a.service.suspect("b", 0.0)
            self.b.service.beat()
        self.assertLess(len(self.segment.recorded), sent + 10 + 2)

    def test_each_hears_the_other(self) -> None:
        """What a node says of itself, the other knows after one interval."""
        self.b.report = attrs.evolve(self.b.report, load=Load(7, 1.0, 0.5, 3), draining=True)
        self.segment.advance(0.5)
        self.assertEqual(self.a.service.members()[1], self.b.report)

    def test_silence(self) -> None:
        """A node that is not heard for four intervals is out."""
        self.segment.lost = lambda destination: destination == "192.0.2.1"
        for _ in range(3):
            self.segment.advance(0.5)
        self.assertEqual(self.seen(), ["a", "b"])
        self.segment.advance(0.5)
        self.assertEqual(self.seen(), ["a"])

    def test_farewell(self) -> None:
        """A node that stops is out at once."""
        self.b.service.stopService()
        self.assertEqual(self.seen(), ["a"])

    def test_recordings(self) -> None:
        """A datagram that is sent again changes nothing."""
        source, destination, datagram = next(record for record in self.segment.recorded if record[1] == "192.0.2.1")
        self.segment.send(source, destination, datagram)
        self.assertEqual(self.a.counters.get("heartbeat_refused", "replayed"), 1)

    def test_stranger(self) -> None:
        """Who has the key but is in no configuration is not heard."""
        other = Segment()
        stranger, _ = array(other, "z", "a")
        datagram = other.recorded[0][2]
        self.assertEqual(stranger.report.name, "z")
        self.segment.send("192.0.2.9", "192.0.2.1", datagram)
        self.assertEqual(self.a.counters.get("heartbeat_refused", "stranger"), 1)
        self.assertEqual(self.seen(), ["a", "b"])

    def test_settled(self) -> None:
        """A node is settled when it has heard all the others, or has listened long enough for those that live."""
        self.assertTrue(self.a.service.settled)
        alone, _ = array(Segment(), "a", "b", deaf=True)
        self.assertFalse(alone.service.settled)
        segment = alone.segment
        for _ in range(8):
            segment.advance(0.5)
        self.assertTrue(alone.service.settled)
        alone.service.stopService()
        self.assertFalse(alone.service.settled)

    def alone(self, heard_after_s: float) -> list[SystemRefused]:
        """What a node with another key gives up for; the others are heard from some time on."""
        segment = Segment()
        other = Segment()
        _, speaker = array(other, "a", "b")
        gave_up: list[SystemRefused] = []
        report = NodeReport(name="a", address=IPv4Address("192.0.2.1"), incarnation=1)
        alone = MembershipService(
            reactor=segment,
            name="a",
            bind=report.address,
            port=4780,
            peers={"b": speaker.report.address},
            codec=DatagramCodec(secret=b"another", array_name="shop"),
            interval_s=0.5,
            lost_after=4,
            report=lambda: report,
            counters=Counters(),
            alone_with_wrong_key=gave_up.append,
            wall_clock=segment.seconds,
        )
        alone.startService()
        for _ in range(60):
            segment.advance(0.5)
            if segment.seconds() >= heard_after_s and alone.running:
                datagram = next(record[2] for record in other.recorded if record[0] == "192.0.2.2")
                segment.send("192.0.2.2", "192.0.2.1", datagram)
        alone.stopService()
        self.assertEqual(segment.getDelayedCalls(), [])
        return gave_up

    def test_wrong_key(self) -> None:
        """A node that starts and hears only another key gives up, also when it hears it late."""
        for heard_after_s in (0.0, 3.0):
            (error,) = self.alone(heard_after_s)
            self.assertIn("wrong", str(error))

    def test_strangers_key(self) -> None:
        """Who has run alone for a while does not give up because of one that comes with a wrong key."""
        self.assertEqual(self.alone(15.0), [])

    def test_nothing_is_left(self) -> None:
        """Stopped services leave no timer and no port."""
        self.a.service.stopService()
        self.b.service.stopService()
        self.assertEqual((self.segment.ports, self.segment.getDelayedCalls()), ({}, []))


class MemoryChannelTests(ChannelSuite, SynchronousTestCase):
    """The double keeps the contract that it stands for."""

    def make_channels(self) -> list[MemoryChannel]:
        return MemoryChannel.array("a", "b", "c")


class ArrayChannelTests(ChannelSuite, SynchronousTestCase):
    """The channel of real services."""

    def make_channels(self) -> list[ArrayChannel]:
        self.nodes = array(Segment(), "a", "b", "c")
        return [node.service.channel for node in self.nodes]

    def test_counted(self) -> None:
        """What is heard, what nobody wants and what is refused can be told apart."""
        self.test_listener_that_refuses()
        self.nodes[0].service.channel.publish("other", b"")
        counters = self.nodes[1].counters
        self.assertEqual(counters.get("channel_messages", "topic"), 1)
        self.assertEqual(counters.get("channel_refused", "bad_input"), 1)
        self.assertEqual(counters.get("channel_unheard", "other"), 1)

    def test_not_running(self) -> None:
        """Before the start and after the stop nothing is sent, and nothing raised."""
        channel = self.make_channels()[0]
        self.nodes[0].service.stopService()
        channel.publish("topic", b"said")
        self.assertEqual(self.nodes[1].counters.total("channel_unheard"), 0)
