"""Sequence numbers that were seen: each is good once, as an anti-replay window has it (RFC 4303 §3.4.3)."""

from __future__ import annotations

__all__ = ["SequenceWindow"]


class SequenceWindow:
    """The numbers from 1 on of one sender, some of which may overtake others.

    :param size: how far behind the highest a number may come.
    :ivar highest: of those seen; 0 before the first.
    """

    __slots__ = ("_seen", "_size", "highest")

    def __init__(self, size: int) -> None:
        self.highest = 0
        self._size = size
        #: Bit n: ``highest - n`` was there.
        self._seen = 0

    def admit(self, number: int) -> bool:
        """Take a number in; false when it was there, or came too late to know."""
        ahead = number - self.highest
        if number < 1 or ahead <= -self._size:
            return False
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << self._size) - 1) if ahead < self._size else 1
            self.highest = number
            return True
        if self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True
