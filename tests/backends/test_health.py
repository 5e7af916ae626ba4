"""Rise and fall, and the slow way back."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.health import Health, Seen, ramp
from lbarray.values import BackendState
from tests.backends.parts import BAD, GOOD


class HealthTests(SynchronousTestCase):
    """Rise and fall."""

    def run_through(self, *seen: Seen) -> list[BackendState]:
        health = Health(rise=2, fall=3)
        states = []
        for now, each in enumerate(seen):
            health.saw(each, float(now))
            states.append(health.state)
        return states

    def test_unchecked_serves(self) -> None:
        """Before anybody looked, it may have requests."""
        self.assertTrue(Health().serves)

    def test_first_look_decides(self) -> None:
        """No three failures are needed at the start."""
        self.assertEqual(self.run_through(BAD), [BackendState.DOWN])
        self.assertEqual(self.run_through(GOOD), [BackendState.UP])

    def test_falls_after_three(self) -> None:
        """Two failures are a hiccup, and a success in between starts the count anew."""
        up, down = BackendState.UP, BackendState.DOWN
        self.assertEqual(self.run_through(GOOD, BAD, BAD, BAD), [up, up, up, down])
        self.assertEqual(self.run_through(GOOD, BAD, BAD, GOOD, BAD, BAD), [up] * 6)

    def test_rises_after_two(self) -> None:
        """One success is luck."""
        up, down = BackendState.UP, BackendState.DOWN
        self.assertEqual(self.run_through(BAD, GOOD, BAD, GOOD, GOOD), [down, down, down, down, up])

    def test_changes_are_told_once(self) -> None:
        """``saw`` is true when the state changed, and only then."""
        health = Health(rise=1, fall=2)
        self.assertEqual(
            [health.saw(each, 0.0) for each in (GOOD, BAD, BAD, BAD, GOOD)], [True, False, True, False, True]
        )

    def test_told(self) -> None:
        """Another process's word counts at once."""
        health = Health()
        self.assertTrue(health.told(BackendState.DOWN, BAD, 3.0))
        self.assertEqual((health.serves, health.since, health.last), (False, 3.0, BAD))
        self.assertFalse(health.told(BackendState.DOWN, BAD, 4.0))

    def test_ramp(self) -> None:
        """A recovered one begins with a tenth and grows in a straight line."""
        self.assertEqual([ramp(at, 10.0) for at in (0.0, 5.0, 10.0, 99.0)], [0.1, 0.5, 1.0, 1.0])
        self.assertEqual(ramp(0.0, 0.0), 1.0)
