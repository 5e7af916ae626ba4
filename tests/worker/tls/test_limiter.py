"""Handshakes per client address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.tls.limiter import HandshakeLimiter


class LimiterTests(SynchronousTestCase):
    """At once, and per second."""

    def test_at_once(self) -> None:
        """So many in progress, no more; another address is another matter."""
        limiter = HandshakeLimiter(at_once=2)
        self.assertEqual([limiter.begin("a", 0.0) for _ in range(3)], ["", "", "too_many_at_once"])
        self.assertEqual(limiter.begin("b", 0.0), "")
        limiter.end("a")
        self.assertEqual(limiter.begin("a", 0.0), "")

    def test_per_second(self) -> None:
        """A burst, then the rate."""
        limiter = HandshakeLimiter(at_once=0, per_second=2.0, burst=3)
        said = [limiter.begin("a", 10.0) for _ in range(4)]
        self.assertEqual(said, ["", "", "", "too_many_per_second"])
        self.assertEqual(limiter.begin("a", 10.4), "too_many_per_second")
        self.assertEqual(limiter.begin("a", 10.5), "")
        self.assertEqual(limiter.begin("b", 10.5), "")

    def test_no_limit(self) -> None:
        """Zero is any number."""
        limiter = HandshakeLimiter(at_once=0)
        self.assertEqual({limiter.begin("a", 0.0) for _ in range(5000)}, {""})

    def test_forgets(self) -> None:
        """Addresses that have gone leave nothing behind."""
        limiter = HandshakeLimiter(at_once=5, per_second=1.0, burst=5)
        for number in range(100):
            limiter.begin(f"10.0.0.{number}", 0.0)
            limiter.end(f"10.0.0.{number}")
        limiter.forget(2.0)
        self.assertEqual(len(limiter), 100)
        limiter.forget(6.0)
        self.assertEqual(len(limiter), 0)
