"""Conditions in, a priority out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.tracking import Condition, Rise, Tracker

CARRIER, DISK, WORKERS = Condition("carrier"), Condition("script disk", 60), Condition("workers", 50)


class TrackerTests(SynchronousTestCase):
    """What a node is worth."""

    def test_all_well(self) -> None:
        """Nothing fails: the configured priority."""
        it = Tracker(150)
        self.assertEqual((it.priority, it.fit, it.failing), (150, True, {}))

    def test_weights_add_up(self) -> None:
        """Each failing condition lowers the priority, but never below 1."""
        it = Tracker(100)
        it.report(DISK, False, "disk full")
        self.assertEqual((it.priority, it.fit), (40, True))
        it.report(WORKERS, False)
        self.assertEqual(it.priority, 1)
        it.report(DISK, True)
        self.assertEqual(it.priority, 50)

    def test_without_weight_nothing_goes(self) -> None:
        """A condition without a weight makes the node unfit while it fails."""
        it = Tracker(100)
        self.assertTrue(it.report(CARRIER, False, "no carrier"))
        self.assertEqual((it.fit, it.priority, it.failing), (False, 100, {"carrier": "no carrier"}))
        self.assertTrue(it.report(CARRIER, True))
        self.assertTrue(it.fit)

    def test_news(self) -> None:
        """Only changes are news."""
        it = Tracker(100)
        self.assertFalse(it.report(DISK, True))
        self.assertTrue(it.report(DISK, False))
        self.assertFalse(it.report(DISK, False))

    def test_owner_stays_255(self) -> None:
        """The address owner's priority is no other than 255 (RFC 9568 §5.2.4)."""
        it = Tracker(255)
        it.report(DISK, False)
        self.assertEqual(it.priority, 255)


class RiseTests(SynchronousTestCase):
    """A verdict that takes its time."""

    def test_falls_and_rises(self) -> None:
        """Two failures in a row make it bad, three successes good again."""
        it = Rise(fall=2, rise=3)
        self.assertEqual([it.seen(passed) for passed in (False, True, False, False)], [True, True, True, False])
        self.assertEqual([it.seen(passed) for passed in (True, True, False, True, True, True)], [False] * 5 + [True])

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.booleans(), max_size=40), st.integers(1, 4), st.integers(1, 4))
    def test_only_runs_change_it(self, results: list[bool], fall: int, rise: int) -> None:
        """The verdict changes only with as many of the other kind in a row."""
        it = Rise(fall=fall, rise=rise)
        good = True
        for place, passed in enumerate(results):
            now = it.seen(passed)
            if now != good:
                needed = fall if good else rise
                self.assertEqual(set(results[place + 1 - needed : place + 1]), {now})
            good = now
