"""How many requests a back end can bear at once, found out by its latency."""

from __future__ import annotations

from math import sqrt

__all__ = ["AdaptiveLimit"]


class AdaptiveLimit:
    """A limit that grows while answers stay as quick as they use to be, and shrinks when they become slow.

    The gradient of Netflix's concurrency-limits: short-term latency against long-term latency, and the
    square root of the limit as room for a queue. A failure cuts at once.

    :param tolerance: answers may be so many times slower than usual before the limit shrinks.
    :ivar limit: requests at once, not rounded.
    """

    __slots__ = ("_least", "_long_s", "_most", "_tolerance", "limit")

    def __init__(self, *, least: int = 4, most: int = 1000, tolerance: float = 1.5, start: int = 20) -> None:
        self._least = least
        self._most = most
        self._tolerance = tolerance
        self._long_s = 0.0
        self.limit = float(min(max(start, least), most))

    def answered(self, latency_s: float, outstanding: int) -> None:
        """A request was answered after ``latency_s`` while so many were in hand, it included."""
        if self._long_s == 0.0:
            self._long_s = latency_s
        elif latency_s < self._long_s:
            self._long_s += (latency_s - self._long_s) * 0.05
        else:
            self._long_s += (latency_s - self._long_s) * 0.001
        if outstanding * 2 < self.limit:
            return  # what is not used cannot be judged
        gradient = max(0.5, min(1.0, self._tolerance * self._long_s / max(latency_s, 1e-6)))
        wanted = self.limit * gradient + sqrt(self.limit)
        self.limit = min(self._most, max(self._least, self.limit * 0.9 + wanted * 0.1))

    def failed(self) -> None:
        """A request timed out, broke, or found no connection."""
        self.limit = max(self._least, self.limit * 0.9)
