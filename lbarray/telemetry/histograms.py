"""How long things take: counts in fixed buckets, cheap enough for every request."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

__all__ = ["BUCKETS_S", "Histogram"]

#: Upper bounds in seconds; the last bucket, beyond them, has no bound. About two for each doubling where it matters.
BUCKETS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0
)  # fmt: skip


class Histogram:
    """Durations in seconds.

    :ivar counts: how many fell into each bucket (not below it), one more than :data:`BUCKETS_S`.
    :ivar total_s: their sum.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more that took so long."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """How many in all."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The duration that ``share`` of them (0 to 1) did not exceed, estimated within its bucket; 0 for none."""
        wanted = share * self.count
        if not wanted:
            return 0.0
        below = 0.0
        for place, number in enumerate(self.counts):
            if below + number >= wanted and number:
                low = BUCKETS_S[place - 1] if place else 0.0
                high = BUCKETS_S[place] if place < len(BUCKETS_S) else BUCKETS_S[-1]
                return low + (high - low) * (wanted - below) / number
            below += number
        return BUCKETS_S[-1]

    def add(self, counts: list[int], total_s: float) -> None:
        """Those of another process."""
        for place, number in enumerate(counts):
            self.counts[place] += number
        self.total_s += total_s

    def as_json(self) -> dict[str, object]:
        """For another process, and for the console: counts by bucket and the sum in seconds."""
        return {"counts": list(self.counts), "total_s": self.total_s}
