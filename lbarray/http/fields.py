"""Fields that one hop adds, takes away or changes (RFC 9110 §7.6)."""

from __future__ import annotations

from lbarray.http.events import Fields, Head

__all__ = ["VIA", "end_to_end", "reason_phrase"]

#: What we call ourselves in Via (RFC 9110 §7.6.3).
VIA = b"1.1 lbarray"

# RFC 9110 §7.6.1, and Proxy-Connection, which some clients still send.
HOP_BY_HOP = frozenset(
    [
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"http2-settings",
    ]
)

_REASONS = {
    200: b"OK",
    204: b"No Content",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    403: b"Forbidden",
    410: b"Gone",
    429: b"Too Many Requests",
    451: b"Unavailable For Legal Reasons",
    400: b"Bad Request",
    404: b"Not Found",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


def reason_phrase(status: int) -> bytes:
    """For the statuses that we answer with ourselves."""
    return _REASONS.get(status, b"Error")


def end_to_end(head: Head) -> tuple[Fields, bool, bool]:
    """The fields that go on to the next hop; whether the content is chunked; whether its length is given.

    Fields that ``Connection`` names go no further either.
    """
    kept: Fields = []
    named: list[bytes] = []
    chunked = length = False
    for pair in head.fields:
        lower = pair[0].lower()
        if lower in HOP_BY_HOP:
            if lower == b"transfer-encoding":
                chunked = True
            elif lower == b"connection":
                named.append(pair[1])
            continue
        if lower == b"content-length":
            length = True
        kept.append(pair)
    if named:
        extra = {name.strip().lower() for value in named for name in value.split(b",")}
        # A client must not be able to strip what we and the back end depend on.
        extra -= {b"host", b"content-length", b"close", b"keep-alive", b"upgrade", b""}
        if extra:
            kept = [pair for pair in kept if pair[0].lower() not in extra]
    return kept, chunked, length
