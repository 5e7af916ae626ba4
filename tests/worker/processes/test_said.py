"""What several processes say of one event."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.processes.said import SaidOnce


class SaidTests(SynchronousTestCase):
    """Once is enough."""

    def test_once(self) -> None:
        """The same words of another process are not for the log; its own again, others and later ones are."""
        said = SaidOnce()
        self.assertTrue(said.new(0, "tls", "ends soon", 1.0))
        self.assertFalse(said.new(1, "tls", "ends soon", 1.2))
        self.assertTrue(said.new(0, "tls", "ends soon", 1.3))
        self.assertTrue(said.new(1, "tls", "ends today", 1.3))
        self.assertTrue(said.new(1, "tls", "ends soon", 60.0))

    def test_bounded(self) -> None:
        """What was said long ago is forgotten."""
        said = SaidOnce()
        for number in range(5000):
            said.new(0, "tls", str(number), float(number))
        self.assertLess(len(said._said), 1100)
