"""Pools: who is fit, who has room, who waits."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.ejection import Ejector, EjectRules
from lbarray.backends.policies.round_robin import RoundRobin
from lbarray.backends.pool import Member, Pool, PoolLimits
from lbarray.plugin import PolicySettings
from lbarray.values import BackendState, Outcome
from tests.backends.parts import BAD, GOOD, member


def make_pool(*of: Member, **more: Any) -> Pool:
    policy = RoundRobin(PolicySettings(chance=random.Random(1)))
    return Pool(name="web", members=of, policy=policy, **more)


def names(pool: Pool, count: int = 8) -> set[str]:
    """Who is chosen when nothing is in hand."""
    return {chosen.address.name for chosen in (pool.choose() for _ in range(count)) if chosen is not None}


class FitTests(SynchronousTestCase):
    """Who may have new requests."""

    def setUp(self) -> None:
        self.one, self.other = member("w1"), member("w2")
        self.pool = make_pool(self.one, self.other)

    def test_down_gets_nothing(self) -> None:
        """A member that is down is passed over; when all are, there is none to choose."""
        self.one.health.saw(BAD, 0.0)
        self.pool.refresh()
        self.assertEqual(names(self.pool), {"w2"})
        self.other.health.saw(BAD, 0.0)
        self.pool.refresh()
        self.assertIsNone(self.pool.choose())

    def test_draining(self) -> None:
        """A draining member gets no new clients and says so."""
        self.one.draining = True
        self.pool.refresh()
        self.assertEqual(names(self.pool), {"w2"})
        self.assertIs(self.one.state, BackendState.DRAINING)
        self.assertTrue(self.one.serves)

    def test_backup(self) -> None:
        """A backup gets requests while no other can serve, and no longer."""
        spare = member("spare", backup=True)
        pool = make_pool(self.one, spare)
        self.assertEqual(names(pool), {"w1"})
        self.one.health.saw(BAD, 0.0)
        pool.refresh()
        self.assertEqual(names(pool), {"spare"})

    def test_not_the_same_again(self) -> None:
        """A repeat goes to another member."""
        self.assertEqual({self.pool.choose((self.one,)) for _ in range(4)}, {self.other})
        self.assertIsNone(self.pool.choose((self.one, self.other)))

    def test_add_and_remove(self) -> None:
        """Members come and go while it serves; who goes closes its idle connections."""
        self.pool.add(member("w3"))
        self.assertEqual(names(self.pool), {"w1", "w2", "w3"})
        self.pool.remove("w1")
        self.assertEqual(names(self.pool), {"w2", "w3"})

    def test_slow_start(self) -> None:
        """A recovered member has its whole share only after a while."""
        pool = make_pool(self.one, self.other, limits=PoolLimits(slow_start_s=10.0))
        self.one.health.saw(BAD, 0.0)
        self.one.health.saw(GOOD, 1.0)
        self.one.health.saw(GOOD, 2.0)
        pool.recovers(self.one, 2.0)
        shares = []
        for now in (2.0, 7.0, 12.0, 13.0):
            pool.tick(now)
            shares.append(self.one.share)
        self.assertEqual(shares, [0.1, 0.5, 1.0, 1.0])


class Idle:
    """A connection that says when it is closed."""

    def __init__(self, name: str, closed: list[str]) -> None:
        self._name = name
        self._closed = closed

    def __str__(self) -> str:
        return self._name

    def close(self) -> None:
        self._closed.append(self._name)


class RoomTests(SynchronousTestCase):
    """Limits of members and pool."""

    def test_full_members_are_passed_over(self) -> None:
        """Requests go where there is room, and nowhere when there is none."""
        small, large = member("small", max_requests=1), member("large", max_requests=3)
        pool = make_pool(small, large)
        for _ in range(4):
            chosen = pool.choose()
            assert chosen is not None
            pool.begin(chosen)
        self.assertEqual((small.outstanding, large.outstanding), (1, 3))
        self.assertIsNone(pool.choose())
        pool.end(large, Outcome.ANSWERED, None, 0.0)
        self.assertIs(pool.choose(), large)

    def test_pool_limit(self) -> None:
        """The pool as a whole takes no more than its limit."""
        pool = make_pool(member("w1"), member("w2"), limits=PoolLimits(max_requests=3))
        for _ in range(3):
            chosen = pool.choose()
            assert chosen is not None
            pool.begin(chosen)
        self.assertIsNone(pool.choose())

    def test_connections(self) -> None:
        """A pool has no more connections than its limit, busy and idle: the oldest idle ones go for new ones."""
        one, other = member("w1"), member("w2")
        pool = make_pool(one, other, limits=PoolLimits(max_connections=2))
        closed: list[str] = []
        for name in ("older", "newer"):
            one.idle.store(Idle(name, closed), 0.0)
        pool.begin(other)
        self.assertIsNone(pool.connection(other))
        self.assertEqual((closed, pool.idle), (["older"], 1))
        pool.begin(one)
        self.assertEqual((str(pool.connection(one)), closed), ("newer", ["older"]))
        self.assertIsNone(pool.choose())

    def test_retry_budget(self) -> None:
        """Repeats are a part of the requests: a storm ends, and a quiet pool may always repeat a few."""
        pool = make_pool(member("w1"), limits=PoolLimits(retries=2, retry_share=0.2))
        self.assertTrue(pool.may_retry(1))
        self.assertFalse(pool.may_retry(3))
        self.assertLess(sum(pool.may_retry(1) for _ in range(100)), 25)
        for _ in range(10):
            pool.begin(pool.members["w1"])
        self.assertEqual(sum(pool.may_retry(1) for _ in range(100)), 2)
        self.assertTrue(all(pool.may_retry(1, unsent=True) for _ in range(100)))
        self.assertFalse(pool.may_retry(3, unsent=True))


class CircuitTests(SynchronousTestCase):
    """Ejection as a pool sees it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.members = [member(f"w{place}") for place in range(3)]
        self.pool = make_pool(*self.members, ejector=Ejector(EjectRules(consecutive=2, base_s=10)))

    def fail(self, place: int, times: int = 1, outcome: Outcome = Outcome.BROKEN) -> bool:  # type: ignore[override]
        changed = False
        for _ in range(times):
            self.pool.begin(self.members[place])
            changed = self.pool.end(self.members[place], outcome, None, self.clock.seconds())
        if changed:
            self.pool.refresh()
        return changed

    def test_ejected_gets_nothing_for_a_while(self) -> None:
        """Failures in a row take a member out; after its time it has one request on trial; success brings it back."""
        self.fail(0, 2)
        self.assertEqual(names(self.pool), {"w1", "w2"})
        self.assertIs(self.members[0].state, BackendState.EJECTED)
        self.clock.advance(10)
        self.assertEqual(self.pool.tick(self.clock.seconds()), [self.members[0]])
        self.assertEqual((names(self.pool), self.members[0].limit), ({"w0", "w1", "w2"}, 1))
        self.fail(0, outcome=Outcome.ANSWERED)
        self.assertGreater(self.members[0].limit, 1)

    def test_last_resort(self) -> None:
        """When all others are down, one that was only ejected is better than nobody."""
        self.fail(0, 2)
        for each in self.members[1:]:
            each.health.saw(BAD, 0.0)
        self.pool.refresh()
        self.assertEqual(names(self.pool), {"w0"})


class Waiting:
    """A request in the queue."""

    def __init__(self, name: str, bound: Member | None = None, priority: int = 0) -> None:
        self.name = name
        self.bound = bound
        self.priority = priority
        self.sequence = 0
        self.gone = True
        self.key = b""


class QueueTests(SynchronousTestCase):
    """Who is next when there is room."""

    def setUp(self) -> None:
        self.one, self.other = member("w1", max_requests=1), member("w2", max_requests=1)
        self.got: list[tuple[str, str]] = []
        self.pool = make_pool(
            self.one,
            self.other,
            limits=PoolLimits(queue=10),
            handed=lambda waiter, found: self.got.append((waiter.name, found.address.name)),
        )
        for each in (self.one, self.other):
            self.pool.begin(each)

    def end(self, of: Member) -> None:
        self.pool.end(of, Outcome.ANSWERED, None, 0.0)

    def test_in_order_of_priority(self) -> None:
        """Important ones first, then as they came."""
        for name, priority in (("a", 0), ("b", 0), ("c", 5)):
            self.pool.queue.push(Waiting(name, priority=priority))
        for _ in range(3):
            self.end(self.one)
        self.assertEqual(self.got, [("c", "w1"), ("a", "w1"), ("b", "w1")])

    def test_bound_ones_wait_for_their_own(self) -> None:
        """A request that belongs to one member does not go to another, and holds nobody else up."""
        self.pool.queue.push(Waiting("mine", bound=self.one))
        self.pool.queue.push(Waiting("any"))
        self.end(self.other)
        self.assertEqual(self.got, [("any", "w2")])
        self.end(self.one)
        self.assertEqual(self.got[1:], [("mine", "w1")])

    def test_unbound_when_its_own_is_down(self) -> None:
        """When the member that it waits for dies it may go to any."""
        self.pool.queue.push(Waiting("mine", bound=self.one))
        self.one.health.saw(BAD, 0.0)
        self.pool.refresh()
        self.end(self.other)
        self.assertEqual(self.got, [("mine", "w2")])

    def test_a_member_that_comes_takes_from_the_queue(self) -> None:
        """Room is used as soon as it is there, whatever brought it."""
        self.pool.queue.push(Waiting("any"))
        self.pool.add(member("w3"))
        self.assertEqual(self.got, [("any", "w3")])

    def test_pool_limit_frees_for_bound_ones(self) -> None:
        """With a limit of the pool, the end of a request anywhere may make room for one that is bound elsewhere."""
        got: list[str] = []
        one, other = member("w1"), member("w2")
        limits = PoolLimits(queue=10, max_requests=1)
        pool = make_pool(one, other, limits=limits, handed=lambda waiter, found: got.append(waiter.name))
        pool.begin(one)
        pool.queue.push(Waiting("bound", bound=other))
        pool.end(one, Outcome.ANSWERED, None, 0.0)
        self.assertEqual(got, ["bound"])
