"""What an HTTP/2 client may do to us, counted frame by frame before anything looks into them (RFC 9113 §10.5).

Frames that cost the sender nothing and us a little are what floods are made of: resets, pings, settings,
priorities, empty DATA, header blocks without end.
"""

from __future__ import annotations

from typing import Final

from lbarray.errors import Unreadable

__all__ = ["PREFACE", "Flood", "FrameMeter"]

#: What a client begins with (RFC 9113 §3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM = _ACK = 0x1
_END_HEADERS = 0x4


class Flood(Unreadable):
    """More of something than any use of the protocol needs; the connection ends with ENHANCE_YOUR_CALM."""

    reason = "h2_flood"


class FrameMeter:
    """Reads frame heads as they pass (RFC 9113 §4.1).

    :param max_block: octets of one header block, HEADERS and CONTINUATION together.
    :param control_rate: frames a second that carry nothing; ten seconds' worth at once.
    :param reset_rate: RST_STREAM frames a second; ten seconds' worth at once.
    :ivar in_block: a header block has begun and not ended.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_control",
        "_control_rate",
        "_head",
        "_max_block",
        "_reset_rate",
        "_resets",
        "_skip",
        "_then",
        "in_block",
    )

    def __init__(self, *, max_block: int, control_rate: float = 100.0, reset_rate: float = 20.0) -> None:
        self._max_block = max_block
        self._control_rate = control_rate
        self._reset_rate = reset_rate
        self._control = control_rate * 10
        self._resets = reset_rate * 10
        self._then: float | None = None
        self._skip = len(PREFACE)
        self._head = b""
        self._block = 0
        self._begun = False
        self.in_block = False

    def feed(self, data: bytes, now: float) -> None:
        """Octets of the client as they came, the preface first. ``now``: seconds.

        :raises Flood: enough.
        """
        if self._then is not None:
            gone = now - self._then
            self._control = min(self._control + gone * self._control_rate, self._control_rate * 10)
            self._resets = min(self._resets + gone * self._reset_rate, self._reset_rate * 10)
        self._then = now
        at, end = 0, len(data)
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            head = self._head + data[at : at + 9 - len(self._head)]
            at += len(head) - len(self._head)
            if len(head) < 9:
                self._head = head
                return
            self._head = b""
            self._skip = head[0] << 16 | head[1] << 8 | head[2]
            self._count(head[3], head[4], self._skip)

    def _count(self, kind: int, flags: int, length: int) -> None:
        if not self._begun:
            if kind != _SETTINGS or flags & _ACK:
                raise Flood("preface", "a connection that does not begin with SETTINGS")  # RFC 9113 §3.4
            self._begun = True
        elif kind == _DATA:
            if not length and not flags & _END_STREAM:
                self._spend(1.0)
        elif kind in (_HEADERS, _CONTINUATION):
            # Nine for the frame itself: empty ones are no way around the limit.
            self._block = (self._block if kind == _CONTINUATION else 0) + length + (9 if kind == _CONTINUATION else 0)
            if self._block > self._max_block:
                raise Flood("header_block", "a header block without end")
            self.in_block = not flags & _END_HEADERS
        elif kind == _RST_STREAM:
            self.reset()
        elif kind == _WINDOW_UPDATE:
            self._spend(0.05)
        elif kind == _SETTINGS and flags & _ACK:
            if length:
                raise Flood("frame_size", "an acknowledgement of SETTINGS with content")  # RFC 9113 §6.5
        elif not (kind == _PING and flags & _ACK):
            self._spend(1.0)

    def _spend(self, cost: float) -> None:
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
