"""Passive health: what opens a circuit, for how long, and what is never ejected."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.concurrency import AdaptiveLimit
from lbarray.backends.ejection import _NEXT, Circuit, CircuitState, Ejector, EjectRules, ImpossibleStep, _Seen
from lbarray.backends.pool import Member
from tests.backends.parts import BAD, members


class EjectorTests(SynchronousTestCase):
    """Rules and their bounds."""

    def make(self, count: int = 4, **rules: float) -> None:
        self.members = members(*[1] * count)
        self.ejector = Ejector(EjectRules(**rules))  # type: ignore[arg-type]  # whole numbers are numbers

    def ended(self, member: Member, failed: bool, now: float = 0.0, latency_s: float | None = None) -> bool:
        return self.ejector.ended(self.members, member, failed, latency_s, now)

    def states(self) -> list[CircuitState]:
        return [member.circuit.state for member in self.members]

    def test_failures_in_a_row(self) -> None:
        """Only failures without a success between them."""
        self.make(consecutive=3)
        one = self.members[0]
        self.assertEqual(
            [self.ended(one, failed) for failed in (True, True, False, True, True, True)], [False] * 5 + [True]
        )
        self.assertEqual(one.circuit.why, "3 failures in a row")

    def test_growing_times(self) -> None:
        """Each further ejection lasts longer, up to the longest; being well for long makes it the first again."""
        self.make(consecutive=1, base_s=10, longest_s=25)
        one, now, lasted = self.members[0], 0.0, []
        for _ in range(4):
            self.ended(one, True, now)
            lasted.append(one.circuit.until - now)
            now = one.circuit.until
            self.assertEqual(self.ejector.tick(self.members, now), [one])
        self.assertEqual(lasted, [10, 20, 25, 25])
        self.ended(one, False, now)
        self.ejector.tick(self.members, now + 26)
        self.ended(one, True, now + 26)
        self.assertEqual(one.circuit.until, now + 36)

    def test_panic_threshold(self) -> None:
        """However bad all are, half of them stay; members that are down count as lost already."""
        self.make(consecutive=1, min_fit=0.5)
        for member in self.members:
            self.ended(member, True)
        self.assertEqual(self.states().count(CircuitState.OPEN), 2)
        self.make(consecutive=1, min_fit=0.5)
        self.members[3].health.saw(BAD, 0.0)
        for member in self.members[:3]:
            self.ended(member, True)
        self.assertEqual(self.states().count(CircuitState.OPEN), 1)

    def test_the_only_one_stays(self) -> None:
        """A pool of one is never without."""
        self.make(count=1, consecutive=1, min_fit=0.0)
        self.assertFalse(self.ended(self.members[0], True))

    def test_error_ratio(self) -> None:
        """A window with too many failures ejects at its end; one with few requests says nothing."""
        self.make(consecutive=0, error_ratio=0.5, min_requests=10, window_s=10)
        self.ejector.tick(self.members, 0.0)
        for number in range(10):
            self.ended(self.members[0], number % 2 == 0, 1.0)
            self.ended(self.members[1], number % 3 == 0, 1.0)
        self.ended(self.members[2], True, 1.0)
        self.assertEqual(self.ejector.tick(self.members, 5.0), [])
        self.assertEqual(self.ejector.tick(self.members, 10.0), [self.members[0]])
        self.assertEqual(self.members[0].circuit.why, "5 of 10 requests failed")

    def test_latency_outlier(self) -> None:
        """One that is much slower than the median of all is ejected, where that is wanted."""
        self.make(consecutive=0, error_ratio=0, latency_factor=5, min_requests=5, window_s=10)
        self.ejector.tick(self.members, 0.0)
        for member in self.members:
            for _ in range(5):
                self.ended(member, False, 1.0, 0.2 if member is self.members[2] else 0.01)
        self.assertEqual(self.ejector.tick(self.members, 10.0), [self.members[2]])

    def test_on_trial(self) -> None:
        """After its time one success closes the circuit, one failure opens it again."""
        for failed, wanted in ((False, CircuitState.CLOSED), (True, CircuitState.OPEN)):
            self.make(consecutive=1)
            one = self.members[0]
            self.ended(one, True)
            self.ejector.tick(self.members, 10.0)
            self.assertIs(one.circuit.state, CircuitState.HALF_OPEN)
            self.ended(one, failed, 10.0)
            self.assertIs(one.circuit.state, wanted)

    def test_probe_brings_back(self) -> None:
        """A probe that found it well again after it was down ends an ejection."""
        self.make(consecutive=1)
        self.ended(self.members[0], True)
        self.assertTrue(self.ejector.recovered(self.members[0], 1.0))
        self.assertFalse(self.ejector.recovered(self.members[0], 1.0))
        self.assertIs(self.members[0].circuit.state, CircuitState.CLOSED)

    def test_every_step_is_listed_or_refused(self) -> None:
        """The table knows all states and inputs; what cannot be is an error."""
        for state, seen in itertools.product(CircuitState, _Seen):
            circuit = Circuit()
            circuit.state = state
            if (state, seen) in _NEXT:
                circuit.step(seen)
                self.assertIs(circuit.state, _NEXT[state, seen])
            else:
                self.assertRaises(ImpossibleStep, circuit.step, seen)


class AdaptiveLimitTests(SynchronousTestCase):
    """What a back end can bear."""

    def test_grows_while_quick(self) -> None:
        """Used to the full and as quick as ever: more may come, up to the most."""
        limit = AdaptiveLimit(start=10, most=50)
        for _ in range(2000):
            limit.answered(0.01, int(limit.limit))
        self.assertEqual(limit.limit, 50)

    def test_shrinks_when_slow(self) -> None:
        """Ten times slower than usual: the limit falls, but not below the least."""
        limit = AdaptiveLimit(start=40, least=4)
        for _ in range(100):
            limit.answered(0.01, 1)
        for _ in range(200):
            limit.answered(0.1, int(limit.limit))
        self.assertLess(limit.limit, 20)
        for _ in range(200):
            limit.failed()
        self.assertEqual(limit.limit, 4)

    def test_unused_says_nothing(self) -> None:
        """A back end with little to do keeps its limit."""
        limit = AdaptiveLimit(start=20)
        for _ in range(100):
            limit.answered(0.01, 2)
        self.assertEqual(limit.limit, 20)
