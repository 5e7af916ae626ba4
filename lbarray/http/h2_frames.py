"""Frames of HTTP/2: their kinds, codes, and how those that we send are written (RFC 9113 §4, §6, §7)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from lbarray.errors import Unreadable

__all__ = [
    "ACK", "CONTINUATION", "DATA", "END_HEADERS", "END_STREAM", "GOAWAY", "HEAD", "HEADERS", "MAX_FRAME", "MAX_WINDOW",
    "PADDED", "PING", "PREFACE", "PRIORITY", "PRIORITY_FLAG", "PUSH_PROMISE", "RST_STREAM", "SETTINGS", "WINDOW_UPDATE",
    "ErrorCode", "Http2Error", "Setting", "goaway_frame", "head", "ping_ack", "rst_stream_frame", "settings_frame",
    "window_update_frame",
]  # fmt: skip

#: What a client begins with (RFC 9113 §3.4).
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY_FLAG = 0x4, 0x8, 0x20

#: Octets of one frame's payload that an endpoint must take and that we take; and the largest window.
MAX_FRAME: Final = 16384
MAX_WINDOW: Final = (1 << 31) - 1

#: A frame's head: its length (in two parts), kind, flags, stream.
HEAD: Final = Struct(">HBBBI")
_pack = HEAD.pack


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class Setting(IntEnum):
    """RFC 9113 §6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Http2Error(Unreadable):
    """What ends a connection (RFC 9113 §5.4.1). ``code`` goes into the GOAWAY."""

    reason = "h2_connection"

    def __init__(self, why: str, detail: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(why, detail)
        self.code = code


def head(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The nine octets before a payload."""
    return _pack(length >> 8, length & 255, kind, flags, stream_id)


def settings_frame(settings: dict[Setting, int]) -> bytes:
    """SETTINGS."""
    return head(6 * len(settings), SETTINGS, 0, 0) + b"".join(
        int(name).to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in settings.items()
    )


def window_update_frame(stream_id: int, octets: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return head(4, WINDOW_UPDATE, 0, stream_id) + octets.to_bytes(4, "big")


def rst_stream_frame(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return head(4, RST_STREAM, 0, stream_id) + int(code).to_bytes(4, "big")


def goaway_frame(last_id: int, code: ErrorCode) -> bytes:
    """GOAWAY, without any words to it."""
    return head(8, GOAWAY, 0, 0) + last_id.to_bytes(4, "big") + int(code).to_bytes(4, "big")


def ping_ack(payload: bytes) -> bytes:
    """The answer to a PING."""
    return head(8, PING, ACK, 0) + payload
