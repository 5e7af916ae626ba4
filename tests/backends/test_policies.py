"""Which back end a policy chooses: suites that all keep, and what each promises."""

from __future__ import annotations

import random
from math import ceil
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.policies.consistent_hash import ConsistentHash
from lbarray.backends.policies.least_outstanding import LeastOutstanding
from lbarray.backends.policies.peak_ewma import PeakEwma
from lbarray.backends.policies.random_choice import RandomChoice
from lbarray.backends.policies.round_robin import RoundRobin
from lbarray.backends.pool import Member
from lbarray.plugin import IBalancePolicyMaker, PolicySettings, makers
from lbarray.testing import PolicySuite
from tests.backends.parts import members


class NoChance(random.Random):
    """Always the first."""

    def random(self) -> float:
        return 0.0


def policy_settings(**more: Any) -> PolicySettings:
    return PolicySettings(**{"chance": random.Random(7), "seconds": Clock().seconds, "seed": b"seed", **more})


def begin(policy: Any, member: Any) -> None:
    member.outstanding += 1
    policy.began(member)


def end(policy: Any, member: Any, latency_s: float | None = None) -> None:
    member.outstanding -= 1
    policy.ended(member, latency_s)


class InstalledTests(SynchronousTestCase):
    """Policies are found through twisted.plugin."""

    def test_all(self) -> None:
        """Those that come with lbarray are there, each makes one and says when to choose it."""
        found = makers(IBalancePolicyMaker)
        wanted = {"consistent-hash", "least-outstanding", "peak-ewma", "random", "round-robin"}
        self.assertLessEqual(wanted, set(found))
        for name in wanted:
            policy = found[name].make(policy_settings())
            policy.update(members(1), members(1))
            self.assertTrue(found[name].summary and type(policy).__doc__)


class _Suite(PolicySuite):
    KIND: Any

    def make_policy(self) -> Any:
        return self.KIND(policy_settings())

    def make_members(self, *weights: int) -> list[Member]:
        return members(*weights)


class RoundRobinTests(_Suite, SynchronousTestCase):
    """In turn."""

    KIND = RoundRobin

    def turns(self, count: int, *weights: int) -> str:
        policy, all_of_them = RoundRobin(policy_settings(chance=NoChance())), members(*weights)
        policy.update(all_of_them, all_of_them)
        policy._turn = -1
        chosen: list[Any] = [policy.choose(b"", ()) for _ in range(count)]
        return "".join("abcdefgh"[all_of_them.index(each)] for each in chosen)

    def test_weights_smoothly(self) -> None:
        """5:1:1 is not aaaaabc: the heavy one's turns are spread."""
        self.assertEqual(self.turns(14, 5, 1, 1), "aabacaaaabacaa")

    def test_exact_parts(self) -> None:
        """After whole cycles each has exactly its part."""
        turns = self.turns(60, 3, 2, 1)
        self.assertEqual([turns.count(name) for name in "abc"], [30, 20, 10])

    def test_many_odd_weights(self) -> None:
        """A cycle that would be too long to make is as fair, turn by turn."""
        weights = [997, 499, 251, *([1] * 60)]
        policy, all_of_them = RoundRobin(policy_settings()), members(*weights)
        policy.update(all_of_them, all_of_them)
        chosen = [policy.choose(b"", ()) for _ in range(sum(weights) * 2)]
        for place, weight in enumerate(weights[:3]):
            self.assertApproximates(chosen.count(all_of_them[place]) / (2 * weight), 1.0, 0.02)

    def test_recovering(self) -> None:
        """A member that recovers gets its smaller share."""
        policy, all_of_them = RoundRobin(policy_settings()), members(1, 1)
        all_of_them[1].share = 0.1
        policy.update(all_of_them, all_of_them)
        chosen = [policy.choose(b"", ()) for _ in range(110)]
        self.assertEqual(chosen.count(all_of_them[1]), 10)


class LeastOutstandingTests(_Suite, SynchronousTestCase):
    """Whoever has the least to do."""

    KIND = LeastOutstanding

    def test_the_idle_one(self) -> None:
        """Busy members are passed over."""
        policy, all_of_them = LeastOutstanding(policy_settings()), members(1, 1, 1)
        policy.update(all_of_them, all_of_them)
        for place in (0, 2):
            for _ in range(3):
                begin(policy, all_of_them[place])
        self.assertEqual({self.one_request(policy) for _ in range(5)}, {all_of_them[1]})

    def test_by_weight(self) -> None:
        """Twice the weight may have twice as much in hand."""
        policy, (light, heavy) = LeastOutstanding(policy_settings()), members(1, 2)
        policy.update([light, heavy], [light, heavy])
        for _ in range(30):
            begin(policy, policy.choose(b"", ()))
        self.assertEqual((light.outstanding, heavy.outstanding), (10, 20))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(-8, 12), max_size=150), st.lists(st.integers(1, 4), min_size=1, max_size=6))
    def test_always_the_least(self, steps: list[int], weights: list[int]) -> None:
        """However requests come and end, the chosen one has the least burden."""
        policy, all_of_them = LeastOutstanding(policy_settings()), members(*weights)
        policy.update(all_of_them, all_of_them)
        busy: list[Any] = []
        for step in steps:
            if step < 0 and busy:
                end(policy, busy.pop(step % len(busy)))
            elif step >= 10:  # a persistent client: not the policy's choice
                busy.append(all_of_them[step % len(all_of_them)])
                begin(policy, busy[-1])
            else:
                chosen: Any = policy.choose(b"", ())
                least = min((each.outstanding + 1) / each.share for each in all_of_them)
                self.assertEqual((chosen.outstanding + 1) / chosen.share, least)
                busy.append(chosen)
                begin(policy, chosen)

    def test_bounded_memory(self) -> None:
        """Requests that come and go leave nothing behind."""
        policy, all_of_them = LeastOutstanding(policy_settings()), members(1, 1)
        policy.update(all_of_them, all_of_them)
        for _ in range(2000):
            self.one_request(policy)
        self.assertLess(len(policy._heap), 100)


class PeakEwmaTests(_Suite, SynchronousTestCase):
    """The better of two."""

    KIND = PeakEwma

    def test_slow_one_gets_little(self) -> None:
        """A member that answers ten times slower gets a small part."""
        policy, (slow, *fast) = PeakEwma(policy_settings()), members(1, 1, 1, 1)
        everybody = [slow, *fast]
        policy.update(everybody, everybody)
        count = 0
        for _ in range(400):
            chosen = policy.choose(b"", ())
            begin(policy, chosen)
            end(policy, chosen, 0.1 if chosen is slow else 0.01)
            count += chosen is slow
        self.assertLess(count, 20)

    def test_peak_counts_at_once_and_is_forgotten(self) -> None:
        """One slow answer counts in full; time forgives it."""
        clock = Clock()
        policy, (one, other) = PeakEwma(policy_settings(seconds=clock.seconds, decay_s=10.0)), members(1, 1)
        policy.update([one, other], [one, other])
        for _ in range(3):
            policy.ended(one, 0.01)
            policy.ended(other, 0.02)
        self.assertIs(policy.choose(b"", ()), one)
        policy.ended(one, 1.0)
        self.assertIs(policy.choose(b"", ()), other)
        clock.advance(100)
        policy.ended(other, 0.02)
        self.assertIs(policy.choose(b"", ()), one)

    def test_newcomer_is_tried_once(self) -> None:
        """Who has not answered yet gets one request and no second before it has."""
        policy, (known, new) = PeakEwma(policy_settings()), members(1, 1)
        policy.update([known, new], [known, new])
        policy.ended(known, 0.01)
        self.assertIs(policy.choose(b"", ()), new)
        begin(policy, new)
        self.assertEqual({policy.choose(b"", ()) for _ in range(5)}, {known})


class RandomTests(_Suite, SynchronousTestCase):
    """By lot."""

    KIND = RandomChoice

    def test_by_weight(self) -> None:
        """Three times the weight, about three times the requests."""
        policy, all_of_them = RandomChoice(policy_settings()), members(3, 1)
        policy.update(all_of_them, all_of_them)
        chosen = [policy.choose(b"", ()) for _ in range(4000)]
        self.assertApproximates(chosen.count(all_of_them[0]) / 4000, 0.75, 0.03)


class ConsistentHashTests(_Suite, SynchronousTestCase):
    """The same key to the same member, within bounds."""

    KIND = ConsistentHash
    KEYS = [b"/item/%d" % number for number in range(3000)]

    def where(self, policy: Any) -> dict[bytes, str]:
        return {key: policy.choose(key, ()).address.name for key in self.KEYS}

    def test_the_same_everywhere(self) -> None:
        """Two nodes with the same seed agree on every key; without the seed nobody can say where a key goes."""
        one, other, stranger = (ConsistentHash(policy_settings(seed=seed)) for seed in (b"s", b"s", b"t"))
        for policy in (one, other, stranger):
            all_of_them = members(1, 2, 1, 1)
            policy.update(all_of_them, all_of_them)
        self.assertEqual(self.where(one), self.where(other))
        self.assertNotEqual(self.where(one), self.where(stranger))

    def test_only_its_keys_move(self) -> None:
        """A member that cannot serve loses its keys and gets them back; all others stay."""
        policy, all_of_them = ConsistentHash(policy_settings()), members(1, 1, 1, 1, 1)
        policy.update(all_of_them, all_of_them)
        before = self.where(policy)
        policy.update(all_of_them, all_of_them[1:])
        without = self.where(policy)
        moved = {key for key in self.KEYS if without[key] != before[key]}
        self.assertEqual(moved, {key for key in self.KEYS if before[key] == "w0"})
        policy.update(all_of_them, all_of_them)
        self.assertEqual(self.where(policy), before)

    def test_a_new_member_takes_its_part(self) -> None:
        """Keys move only to the new one, and about as many as its part is."""
        policy, all_of_them = ConsistentHash(policy_settings()), members(1, 1, 1, 1, 1)
        policy.update(all_of_them[:4], all_of_them[:4])
        before = self.where(policy)
        policy.update(all_of_them, all_of_them)
        after = self.where(policy)
        moved = [key for key in self.KEYS if after[key] != before[key]]
        self.assertEqual({after[key] for key in moved}, {"w4"})
        self.assertApproximates(len(moved) / len(self.KEYS), 0.2, 0.06)

    def test_hot_key_spills(self) -> None:
        """One URL that everybody wants does not melt one member."""
        policy, all_of_them = ConsistentHash(policy_settings(slack=0.25)), members(1, 1, 1, 1)
        policy.update(all_of_them, all_of_them)
        for _ in range(100):
            begin(policy, policy.choose(b"/hot", ()))
        self.assertLessEqual(max(each.outstanding for each in all_of_them), ceil(1.25 * 100 / 4))

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=200),
        st.lists(st.integers(1, 5), min_size=1, max_size=8),
        st.sampled_from([0.01, 0.25, 1.0]),
    )
    def test_bounded(self, steps: list[tuple[bool, int]], weights: list[int], slack: float) -> None:
        """Whoever is chosen has at most ``1 + slack`` times its part, rounded up (Mirrokni et al.)."""
        policy, all_of_them = ConsistentHash(policy_settings(slack=slack)), members(*weights)
        policy.update(all_of_them, all_of_them)
        total = sum(weights)
        busy: list[Any] = []
        for ends, number in steps:
            if ends and busy:
                end(policy, busy.pop(number % len(busy)))
                continue
            chosen: Any = policy.choose(b"/%d" % number, ())
            begin(policy, chosen)
            busy.append(chosen)
            part = len(busy) * chosen.weight / total
            self.assertLessEqual(chosen.outstanding, ceil((1 + slack) * part - 1e-9))
