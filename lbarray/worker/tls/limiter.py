"""How many handshakes one client address may ask for: each costs us far more than the client."""

from __future__ import annotations

__all__ = ["HandshakeLimiter"]


class HandshakeLimiter:
    """Counts handshakes in progress per address, and how fast new ones begin (a token bucket).

    :param at_once: handshakes of one address in progress at the same time; 0 for any number.
    :param per_second: new ones of one address per second in the long run; 0 for any number.
    :param burst: how many may come together before the rate holds.
    """

    def __init__(self, *, at_once: int, per_second: float = 0.0, burst: int = 0) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._burst = float(max(burst, 1))
        self._in_progress: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}

    def __len__(self) -> int:
        """Addresses that something is remembered of."""
        return len(self._in_progress.keys() | self._buckets.keys())

    def begin(self, host: str, now: float) -> str:
        """A handshake begins: ``""``, or the word for the limit that refuses it. ``now``: seconds."""
        in_progress = self._in_progress.get(host, 0)
        if self._at_once and in_progress >= self._at_once:
            return "too_many_at_once"
        if self._per_second:
            tokens, then = self._buckets.get(host, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._per_second)
            if tokens < 1.0:
                return "too_many_per_second"
            self._buckets[host] = (tokens - 1.0, now)
        self._in_progress[host] = in_progress + 1
        return ""

    def end(self, host: str) -> None:
        """A handshake that was let in is over, one way or the other."""
        left = self._in_progress.get(host, 0) - 1
        if left > 0:
            self._in_progress[host] = left
        else:
            self._in_progress.pop(host, None)

    def forget(self, now: float) -> None:
        """Drop what no longer matters; called now and then."""
        if self._per_second:
            full_after = self._burst / self._per_second
            for host in [host for host, (_, then) in self._buckets.items() if now - then > full_after]:
                del self._buckets[host]
