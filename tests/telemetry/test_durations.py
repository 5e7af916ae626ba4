"""Durations by service and route: counted on their own, and there when somebody looks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import REQUESTS, Durations, durations_of, ends_of


class DurationsTests(SynchronousTestCase):
    """One service's requests."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.durations = Durations(self.counters, "https")

    def test_counted(self) -> None:
        """In buckets, as a sum, and by how they ended; whoever reads the counters has them, and reading twice counts
        nothing twice."""
        for seconds, status in ((0.0004, 200), (0.002, 204), (100.0, 504)):
            self.durations.observe(seconds, status, "a/")
        for _ in range(2):
            histogram = durations_of(self.counters)["https", "a/"]
            self.assertEqual((histogram.count, histogram.counts[0], histogram.counts[-1]), (3, 1, 1))
            self.assertAlmostEqual(histogram.total_s, 100.0024, places=5)
            self.assertEqual(ends_of(self.counters), {("https", "a/", "2xx"): 2, ("https", "a/", "5xx"): 1})

    def test_less_than_a_microsecond(self) -> None:
        """What is lost of one is not lost of many."""
        for _ in range(1000):
            self.durations.observe(0.6e-6, 200)
            self.counters.get("anything")
        self.assertAlmostEqual(self.counters.total(REQUESTS.total_us), 600, delta=1)

    def test_anew(self) -> None:
        """A service that is set up anew goes on with the same series, and leaves nothing behind."""
        self.durations.observe(0.1, 200, "a/")
        Durations(self.counters, "https").observe(0.1, 200, "a/")
        self.assertEqual(ends_of(self.counters), {("https", "a/", "2xx"): 2})
        self.assertEqual(len(self.counters._tallies), 1)
