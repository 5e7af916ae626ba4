"""Processor use from /proc/stat."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.processors import ProcessorUse


class ProcessorUseTests(SynchronousTestCase):
    """The share of time between two readings."""

    def test_share(self) -> None:
        """Idle and waiting for disks are not use; everything else is."""
        stat = Path(self.mktemp())
        stat.write_text("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
        use = ProcessorUse(stat)
        stat.write_text("cpu  120 0 110 860 10 0 0 0 0 0\ncpu0 1 2 3\n")
        self.assertAlmostEqual(use.since_last(), 0.3)

    def test_no_time_has_passed(self) -> None:
        """Two readings within one tick say nothing."""
        stat = Path(self.mktemp())
        stat.write_text("cpu  100 0 100 800 0 0 0 0 0 0\n")
        use = ProcessorUse(stat)
        self.assertEqual(use.since_last(), 0.0)

    def test_the_real_one(self) -> None:
        """This machine's own file is understood."""
        self.assertTrue(0.0 <= ProcessorUse().since_last() <= 1.0)
