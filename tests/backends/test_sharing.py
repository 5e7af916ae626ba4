"""What nodes tell each other of sessions, groups and health; over the channel of an array in one process."""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.health import Seen
from lbarray.backends.keys import key_reader
from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.persistence.learnt import LearntPersistence, SessionTable
from lbarray.backends.policies.round_robin import RoundRobin
from lbarray.backends.pool import Member, Pool
from lbarray.backends.sharing import BadSharing, Sharing, entries_of, payloads
from lbarray.backends.watching import Watch, Watcher
from lbarray.plugin import PolicySettings
from lbarray.testing import MemoryChannel
from lbarray.values import BackendAddress
from tests.backends.parts import CLIENT, get, members
from tests.backends.test_service import ServiceCase


def make_pool(persistence: Any = None) -> Pool:
    policy = RoundRobin(PolicySettings(chance=random.Random(1)))
    return Pool(name="web", members=members(1, 1, 1), policy=policy, persistence=persistence)


class Node:
    """One node's learnt table and its sharing."""

    def __init__(self, clock: Clock, channel: Any) -> None:
        self.table = SessionTable(most=1000, ttl_s=60.0, seconds=clock.seconds)
        self.pool = make_pool(LearntPersistence(table=self.table, seed=b"s", cookie="S"))
        self.sharing = Sharing(reactor=clock, pools={"web": self.pool}, channel=channel)


class SessionTests(SynchronousTestCase):
    """Learnt sessions."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.channels = MemoryChannel.array("a", "b", "c")
        self.nodes = [Node(self.clock, channel) for channel in self.channels]

    def test_told(self) -> None:
        """What one node learns all others know a moment later; many in few messages."""
        for node in self.nodes:
            node.sharing.start()
        sent = len(self.channels[0].published)
        for number in range(100):
            self.nodes[0].table.learn(b"%012d" % number, f"w{number % 3}")
        self.clock.advance(0.02)
        for node in self.nodes[1:]:
            self.assertEqual(node.table.get(b"%012d" % 7), "w1")
            self.assertEqual(len(node.table), 100)
        self.assertEqual(len(self.channels[0].published) - sent, 2)

    def test_a_newcomer_is_told_everything(self) -> None:
        """A node that comes later is sent what one of the others knows, once."""
        for node in self.nodes[:2]:
            node.sharing.start()
        for number in range(900):
            self.nodes[0].table.learn(b"%012d" % number, "w2")
        self.clock.advance(0.02)
        self.nodes[2].sharing.start()
        self.clock.pump([0.02] * 5)
        self.assertEqual(len(self.nodes[2].table), 900)
        senders = [
            channel
            for channel in self.channels[:2]
            if any(payload[0] == 1 and to == "c" for _, payload, to in channel.published)
        ]
        self.assertEqual(len(senders), 1)

    def test_asks_until_somebody_answers(self) -> None:
        """Messages may be lost, or nobody may be there yet; it stops asking after a while."""
        self.nodes[0].sharing.start()
        for _ in range(40):
            self.clock.advance(1.0)
        asked = [payload for _, payload, _ in self.channels[0].published if payload[:1] == b"\x02"]
        self.assertEqual(len(asked), 6)

    def test_damaged(self) -> None:
        """What cannot be read is bad input, and changes nothing."""
        self.nodes[0].sharing.start()
        (good,) = payloads("web", [(b"k" * 12, "w0")])
        for payload in (b"", b"\x63", good[:-1]):
            self.assertRaises(BadSharing, self.nodes[0].sharing._hear, "b", payload)
        self.assertEqual(len(list(entries_of(good))), 1)
        self.channels[0].deliver("b", "back-ends", good.replace(good[1:5], b"none"))
        self.assertEqual(len(self.nodes[0].table), 0)


class ProcessTests(SynchronousTestCase):
    """Worker processes of one node, and another node."""

    def setUp(self) -> None:
        self.case = ServiceCase()
        self.clock = Clock()

    def start(self, settings: str, channel: Any = None) -> Any:
        service = self.case.start(settings)
        service._reactor = service._sharing._reactor = self.clock
        if channel is not None:
            service.share(channel)
        service._sharing.start()
        return service

    def family(self, settings: str) -> tuple[Any, Any, Any, Any]:
        """Two workers of the node ``a``, its own process, and the node ``b``."""
        channels = MemoryChannel.array("a", "b")
        node, other = (self.start(settings, channel) for channel in channels)
        workers = [self.start(settings) for _ in range(2)]

        def from_worker(change: dict[str, Any], teller: Any) -> None:
            # What the node's process does for its worker processes.
            node.hear(change)
            for each in workers:
                if each is not teller:
                    each.hear(change)

        for worker in workers:
            worker.subscribe(lambda change, worker=worker: from_worker(change, worker))
        node.subscribe(lambda change: [worker.hear(change) for worker in workers])
        return (*workers, node, other)

    def test_sessions(self) -> None:
        """What a worker process learns, and what another node does, all processes know; a new one as well."""
        settings = 'persistence = { kind = "learnt", session_cookie = "S" }'
        first, second, node, other = self.family(settings)
        tables = [each.pools["web"].persistence.table for each in (first, second, node, other)]
        tables[0].learn(b"k" * 12, "w1")
        tables[3].learn(b"o" * 12, "w2")
        self.clock.advance(0.02)
        self.assertEqual([(table.get(b"k" * 12), table.get(b"o" * 12)) for table in tables], [("w1", "w2")] * 4)
        late = self.start(settings)
        for change in json.loads(json.dumps(node.snapshot())):
            late.hear(change)
        self.assertEqual(late.pools["web"].persistence.table.get(b"k" * 12), "w1")

    def test_groups(self) -> None:
        """A group that any process of any node uses stays with its draining back end."""
        settings = 'persistence = { kind = "hash", by = "client", idle = "30s" }'
        self.clock.advance(1000)
        first, second, node, other = self.family(settings)
        for service in (first, second, node, other):
            service.pools["web"].persistence._seconds = self.clock.seconds
        found = first.pools["web"].persistence.find(get(), CLIENT)[0].address.name
        for service in (first, second, node, other):
            service.drain("web", found)
        self.clock.pump([1.0, 1.0])
        for service in (second, node, other):
            service.pools["web"].refresh()
            self.assertEqual(service.pools["web"].persistence.find(get(), CLIENT)[0].address.name, found)


class ChangeTests(SynchronousTestCase):
    """What an operator changes at one node."""

    def test_done_once_everywhere(self) -> None:
        """Told several times, as a message may be lost; each other node does it once."""
        clock = Clock()
        done: dict[str, list[Any]] = {}
        channels = MemoryChannel.array("a", "b", "c")
        sharing = [
            Sharing(reactor=clock, pools={}, channel=channel, changed=done.setdefault(channel.name, []).append)
            for channel in channels
        ]
        for each in sharing:
            each.start()
        sharing[0].tell_change({"what": "drain", "pool": "web", "backend": "w1", "draining": True})
        clock.pump([0.1] * 10)
        self.assertEqual([len(done[name]) for name in "abc"], [0, 1, 1])
        told = [payload for _, payload, _ in channels[0].published if payload[:1] == b"\x06"]
        self.assertEqual(len(told), 3)

    def test_between_services(self) -> None:
        """A change at one node is made at the other; what it does not understand is bad input and changes nothing."""
        case = ServiceCase()
        there, here = case.start(), case.start()
        clock = Clock()
        for service, channel in zip((there, here), MemoryChannel.array("a", "b"), strict=True):
            service._reactor = clock
            service.share(channel)
            service._sharing.start()
        with there.telling(True):
            there.drain("web", "w1")
            there.add("web", "w9", "192.0.2.9", 80)
        there.drain("web", "w2")
        members = here.pools["web"].members
        self.assertEqual([name for name, each in members.items() if each.draining], ["w1"])
        self.assertIn("w9", members)
        for change in (b"[]", b"{}", b'{"id": "1"}', b'{"id": "2", "pool": "web", "what": "weigh"}', b"\xff"):
            self.assertRaises(BadSharing, here._sharing._hear, "a", b"\x06" + change)


class GroupTests(SynchronousTestCase):
    """Hash groups."""

    def test_used_ones_stay_while_draining(self) -> None:
        """A client that uses a group at one node keeps its back end at the others too."""
        clock = Clock()
        clock.advance(1000)
        pools = []
        for channel in MemoryChannel.array("a", "b"):
            kept = GroupPersistence(key_of=key_reader("client"), seed=b"s", seconds=clock.seconds, idle_s=30.0)
            pool = make_pool(kept)
            Sharing(reactor=clock, pools={"web": pool}, channel=channel).start()
            pools.append(pool)
        there, here = pools
        found = there.persistence.find(get(), CLIENT)[0]
        for pool in pools:
            pool.members[found.address.name].draining = True
        clock.advance(1.0)
        here.refresh()
        self.assertEqual(here.persistence.find(get(), CLIENT)[0].address.name, found.address.name)


class CountingProbe:
    """A probe that counts, and sees what a test says."""

    def __init__(self) -> None:
        self.looks = 0
        self.passed = True

    def probe(self, backend: BackendAddress) -> Deferred[Seen]:
        self.looks += 1
        return succeed(Seen(self.passed, "said"))


class HealthTests(SynchronousTestCase):
    """Shared checks."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.probe = CountingProbe()
        self.saw: dict[str, list[Seen]] = {}
        self.watchers: list[Watcher] = []

    def start(self, *, shared: bool) -> None:
        channels = MemoryChannel.array("a", "b", "c", "d", "e")
        for number, channel in enumerate(channels):
            pool = make_pool()
            seen = self.saw[channel.name] = []

            def saw(pool: Pool, member: Member, what: Seen, seen: list[Seen] = seen) -> None:
                seen.append(what)

            watcher = Watcher(
                reactor=self.clock,
                pools={"web": pool},
                watches={"web": Watch(probe=self.probe, interval_s=1.0, shared=shared)},
                saw=saw,
                chance=random.Random(number).random,
            )
            watcher.share(channel)
            watcher.start()
            self.watchers.append(watcher)

    def run_for(self, seconds: float) -> int:
        before = self.probe.looks
        for _ in range(int(seconds * 50)):
            self.clock.advance(0.02)
        return self.probe.looks - before

    def test_five_cost_little_more_than_one(self) -> None:
        """Five nodes and three back ends: about as many looks as one node needs, and all know as much."""
        self.start(shared=True)
        self.run_for(5)
        looks = self.run_for(60)
        self.assertLess(looks, 1.6 * 60 * 3)
        for seen in self.saw.values():
            self.assertGreater(len(seen), 0.8 * 60 * 3)

    def test_each_for_itself(self) -> None:
        """Without sharing every node looks."""
        self.start(shared=False)
        self.assertGreater(self.run_for(60), 4.5 * 60 * 3)

    def test_another_takes_over(self) -> None:
        """When the one that looks falls silent, another looks within two intervals."""
        self.start(shared=True)
        self.run_for(10)
        looks = {watcher: watcher.looks["web"] for watcher in self.watchers}
        self.run_for(10)
        busiest = max(self.watchers, key=lambda watcher: watcher.looks["web"] - looks[watcher])
        busiest.stop()
        self.watchers.remove(busiest)
        self.assertGreater(self.run_for(2), 2)

    def test_bad_news_travels(self) -> None:
        """What one node sees counts at the others."""
        self.start(shared=True)
        self.run_for(5)
        self.probe.passed = False
        self.run_for(3)
        for seen in self.saw.values():
            self.assertFalse(seen[-1].passed)
