"""What an HTTP/2 client may do to us (RFC 9113 §10.5).

Frames that cost the sender nothing and us a little are what floods are made of: resets, pings, settings, priorities,
empty DATA. Each is paid for from a budget that time fills again.
"""

from __future__ import annotations

from lbarray.http.h2_frames import ErrorCode, Http2Error

__all__ = ["Flood", "FloodMeter"]


class Flood(Http2Error):
    """More of something than any use of the protocol needs; the connection ends with ENHANCE_YOUR_CALM."""

    reason = "h2_flood"

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(why, detail, ErrorCode.ENHANCE_YOUR_CALM)


class FloodMeter:
    """The budgets of one connection.

    :param control_rate: frames a second that carry nothing; ten seconds' worth at once.
    :param reset_rate: streams a second that are reset, by the client or by its mistakes; ten seconds' worth at once.
    """

    __slots__ = ("_control", "_control_rate", "_reset_rate", "_resets", "_then")

    def __init__(self, *, control_rate: float = 100.0, reset_rate: float = 20.0) -> None:
        self._control_rate = control_rate
        self._reset_rate = reset_rate
        self._control = control_rate * 10
        self._resets = reset_rate * 10
        self._then: float | None = None

    def at(self, now: float) -> None:
        """It is ``now``, in seconds."""
        if self._then is not None:
            gone = now - self._then
            self._control = min(self._control + gone * self._control_rate, self._control_rate * 10)
            self._resets = min(self._resets + gone * self._reset_rate, self._reset_rate * 10)
        self._then = now

    def spend(self, cost: float = 1.0) -> None:
        """A frame that carries nothing.

        :raises Flood: too many.
        """
        self._control -= cost
        if self._control < 0:
            raise Flood("control_frames", "frames that carry nothing, without end")

    def reset(self) -> None:
        """A stream was reset, by the client or by a mistake of its own that made us.

        :raises Flood: too many (rapid reset, CVE-2023-44487, and its relatives).
        """
        self._resets -= 1.0
        if self._resets < 0:
            raise Flood("resets", "streams that are opened to be reset")
