"""For authors of plug-ins and for our own tests: suites that every provider passes, and honest doubles."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from zope.interface import implementer
from zope.interface.verify import verifyObject

from lbarray.errors import BadInput
from lbarray.interfaces import IArrayChannel, IBalancePolicy, IForwardingPlane, IMembershipSource
from lbarray.values import (
    Address,
    HashBy,
    NodeReport,
    PlaneCounters,
    PlaneFlow,
    PlaneService,
    ServiceId,
    WorkerCost,
    WorkerTarget,
)

__all__ = ["ChannelSuite", "MemoryChannel", "MemoryMembers", "MemoryPlane", "PlaneSuite", "PolicySuite", "every_split"]


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """``data`` whole, octet by octet, and cut in two at every place: however TCP may deliver it."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


@implementer(IForwardingPlane)
class MemoryPlane:
    """A plane that forwards nothing and remembers everything; ``fault`` is what :meth:`check` finds."""

    name = "memory"

    def __init__(self) -> None:
        self.attached = False
        self.fault = ""
        self.active: frozenset[Address] = frozenset()
        self.services: tuple[PlaneService, ...] = ()
        self.workers: dict[int, WorkerTarget] = {}
        self.rows: list[tuple[int, ...]] = []
        self.costs: dict[int, WorkerCost] = {}

    def attach(self) -> None:
        self.attached = True

    def detach(self) -> None:
        self.attached = False

    def set_active(self, vips: Collection[Address]) -> None:
        self.active = frozenset(vips)

    def set_services(self, services: Sequence[PlaneService]) -> None:
        self.services = tuple(services)

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        self.workers = {worker.index: worker for worker in workers}

    def apply(self, rows: bytes) -> None:
        self.rows = list(struct.iter_unpack("=HHHH", rows))

    def set_costs(self, costs: Mapping[int, WorkerCost]) -> None:
        self.costs = dict(costs)

    def check(self) -> str:
        return self.fault

    def counters(self) -> PlaneCounters:
        return PlaneCounters()

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        return []


@implementer(IMembershipSource)
class MemoryMembers:
    """Members that a test sets."""

    def __init__(self, *reports: NodeReport) -> None:
        self._reports = list(reports)
        self._listeners: list[Callable[[Sequence[NodeReport]], None]] = []

    def members(self) -> list[NodeReport]:
        return list(self._reports)

    def subscribe(self, changed: Callable[[Sequence[NodeReport]], None]) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def become(self, *reports: NodeReport) -> None:
        """These are the members from now on."""
        self._reports = list(reports)
        for listener in list(self._listeners):
            listener(self._reports)


@implementer(IArrayChannel)
class MemoryChannel:
    """The channel of one node of an array that is all in this process; delivers at once.

    :ivar published: (topic, payload, to) of everything, in order.
    """

    def __init__(self, name: str, array: dict[str, MemoryChannel]) -> None:
        self.name = name
        self.published: list[tuple[str, bytes, str | None]] = []
        self._array = array
        self._topics: dict[str, list[Callable[[str, bytes], None]]] = {}

    @classmethod
    def array(cls, *names: str) -> list[MemoryChannel]:
        """The channels of an array of these nodes, in their order."""
        array: dict[str, MemoryChannel] = {}
        for name in names:
            array[name] = cls(name, array)
        return list(array.values())

    def publish(self, topic: str, payload: bytes, to: str | None = None) -> None:
        if not 0 < len(topic.encode()) <= 32 or len(payload) > 1200:
            raise ValueError(f"{topic!r} with {len(payload)} octets")
        self.published.append((topic, payload, to))
        for name, channel in self._array.items():
            if name != self.name and to in (None, name):
                channel.deliver(self.name, topic, payload)

    def subscribe(self, topic: str, received: Callable[[str, bytes], None]) -> Callable[[], None]:
        listeners = self._topics.setdefault(topic, [])
        listeners.append(received)
        return lambda: listeners.remove(received)

    def deliver(self, sender: str, topic: str, payload: bytes) -> None:
        """Node ``sender`` says this."""
        for received in list(self._topics.get(topic, ())):
            try:
                received(sender, payload)
            except BadInput:
                pass


class ChannelSuite:
    """Mix into a ``SynchronousTestCase`` that has ``make_channels``: what every array channel keeps."""

    assertEqual: Any
    assertRaises: Any

    def make_channels(self) -> Sequence[Any]:
        """The channels of running nodes ``a``, ``b`` and ``c``, which hear each other at once."""
        raise AssertionError("a suite needs make_channels")

    def hearing(self, topic: str = "topic") -> tuple[Sequence[Any], list[tuple[str, str, bytes]]]:
        """The channels, and where what arrives will be: (hearing node, sender, payload)."""
        channels = self.make_channels()
        heard: list[tuple[str, str, bytes]] = []
        for name, channel in zip("abc", channels, strict=True):
            channel.subscribe(topic, lambda sender, payload, name=name: heard.append((name, sender, payload)))
        return channels, heard

    def test_provides(self) -> None:
        """It has every method of the interface."""
        for channel in self.make_channels():
            verifyObject(IArrayChannel, channel)

    def test_everyone_else(self) -> None:
        """Every other node hears it, with the name of who said it."""
        channels, heard = self.hearing()
        channels[1].publish("topic", b"said")
        self.assertEqual(sorted(heard), [("a", "b", b"said"), ("c", "b", b"said")])

    def test_one(self) -> None:
        """A message may be for one node; for a node that does not exist it is for none."""
        channels, heard = self.hearing()
        channels[0].publish("topic", b"said", "c")
        channels[0].publish("topic", b"lost", "nobody")
        channels[0].publish("topic", b"lost", "a")
        self.assertEqual(heard, [("c", "a", b"said")])

    def test_other_topics(self) -> None:
        """Nobody hears what they did not ask for."""
        channels, heard = self.hearing()
        channels[0].publish("other", b"said")
        self.assertEqual(heard, [])

    def test_unsubscribe(self) -> None:
        """And nobody hears any more after ending it."""
        channels = self.make_channels()
        heard: list[bytes] = []
        end = channels[1].subscribe("topic", lambda sender, payload: heard.append(payload))
        channels[0].publish("topic", b"first")
        end()
        channels[0].publish("topic", b"second")
        self.assertEqual(heard, [b"first"])

    def test_listener_that_refuses(self) -> None:
        """A listener that finds the payload bad does not keep the others from hearing it."""
        channels = self.make_channels()
        heard: list[bytes] = []

        def refuse(sender: str, payload: bytes) -> None:
            raise BadInput("of no use")

        channels[1].subscribe("topic", refuse)
        channels[1].subscribe("topic", lambda sender, payload: heard.append(payload))
        channels[0].publish("topic", b"said")
        self.assertEqual(heard, [b"said"])

    def test_limits(self) -> None:
        """The longest that is promised arrives; longer is the caller's mistake."""
        channels, heard = self.hearing("t" * 32)
        channels[0].publish("t" * 32, bytes(1200), "b")
        self.assertEqual(heard, [("b", "a", bytes(1200))])
        self.assertRaises(ValueError, channels[0].publish, "topic", bytes(1201))
        self.assertRaises(ValueError, channels[0].publish, "t" * 33, b"")
        self.assertRaises(ValueError, channels[0].publish, "", b"")


class PlaneSuite:
    """Mix into a ``SynchronousTestCase`` that has ``make_plane``: what every forwarding plane keeps."""

    SERVICE = PlaneService(ServiceId(IPv4Address("192.0.2.100"), 80), HashBy.CLIENT)
    #: Rows of the table that ``make_plane``'s plane takes.
    ROWS = 101
    assertEqual: Any
    addCleanup: Any

    def make_plane(self) -> Any:
        """A fresh plane, not attached."""
        raise AssertionError("a suite needs make_plane")

    def attached(self) -> Any:
        """A plane that is detached when the test ends."""
        plane = self.make_plane()
        self.addCleanup(plane.detach)
        plane.attach()
        return plane

    def test_provides(self) -> None:
        """It has every method of the interface."""
        verifyObject(IForwardingPlane, self.make_plane())

    def test_detach_twice(self) -> None:
        """Detaching is idempotent, also when nothing was attached."""
        plane = self.make_plane()
        plane.detach()
        plane.attach()
        plane.detach()
        plane.detach()

    def test_whole_life(self) -> None:
        """Everything may be set, changed and taken away in the order of a node's life."""
        plane = self.attached()
        plane.set_services([self.SERVICE])
        worker = WorkerTarget(3, "c", IPv4Address("192.0.2.3"), b"\2\0\0\0\0\3")
        plane.set_workers([worker])
        plane.apply(struct.pack("=4H", 3, 0xFFFF, 0xFFFF, 0xFFFF) * self.ROWS)
        plane.apply(struct.pack("=4H", 3, 4, 0xFFFF, 0xFFFF) * self.ROWS)
        plane.set_costs({3: WorkerCost(2048, 1024)})
        plane.set_active([self.SERVICE.id.address])
        plane.set_costs({})
        plane.set_workers([])
        plane.set_services([])
        plane.set_active([])
        self.assertEqual(type(plane.counters()), PlaneCounters)


class PolicySuite:
    """Mix into a ``SynchronousTestCase`` that has ``make_policy``: what every balance policy keeps.

    ``make_members(weights)`` gives members in the shape that policies see: ``address``, ``weight``, ``share``
    and ``outstanding``.
    """

    assertEqual: Any
    assertIn: Any
    assertIsNone: Any
    assertGreater: Any

    def make_policy(self) -> Any:
        """A fresh policy."""
        raise AssertionError("a suite needs make_policy")

    def make_members(self, *weights: int) -> list[Any]:
        """Members of these weights, with nothing outstanding."""
        raise AssertionError("a suite needs make_members")

    @staticmethod
    def one_request(policy: Any, key: bytes = b"", latency_s: float | None = 0.01) -> Any:
        """The member that had a request, which is over."""
        member = policy.choose(key, ())
        member.outstanding += 1
        policy.began(member)
        member.outstanding -= 1
        policy.ended(member, latency_s)
        return member

    def test_provides(self) -> None:
        """It has every method of the interface."""
        verifyObject(IBalancePolicy, self.make_policy())

    def test_chooses_a_fit_one(self) -> None:
        """Whatever changes, one of those that are fit is chosen."""
        policy = self.make_policy()
        members = self.make_members(1, 2, 3)
        for count in (3, 1, 2, 3):
            policy.update(members, members[:count])
            for key in (b"", b"a", b"b"):
                self.assertIn(policy.choose(key, ()), members[:count])

    def test_nobody_fit(self) -> None:
        """There is nobody to choose, before and after there was somebody."""
        policy = self.make_policy()
        members = self.make_members(1, 1)
        for fit in ([], members, []):
            policy.update(members, fit)
            self.assertEqual(policy.choose(b"a", ()) is None, not fit)

    def test_avoids(self) -> None:
        """Members tried already are not chosen again, and when all were, nobody is."""
        policy = self.make_policy()
        members = self.make_members(3, 1, 2)
        policy.update(members, members)
        for key in (b"", b"a", b"b", b"c"):
            self.assertIn(policy.choose(key, (members[0],)), members[1:])
            self.assertEqual(policy.choose(key, (members[0], members[2])), members[1])
            self.assertIsNone(policy.choose(key, tuple(members)))
            self.assertIn(policy.choose(key, ()), members)

    def test_nobody_starves(self) -> None:
        """Equal members all get a good part of requests of many keys."""
        policy = self.make_policy()
        members = self.make_members(1, 1, 1)
        policy.update(members, members)
        chosen = [self.one_request(policy, b"key %d" % number) for number in range(600)]
        for member in members:
            self.assertGreater(chosen.count(member), 100)
