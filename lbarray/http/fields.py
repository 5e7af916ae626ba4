"""Fields that one hop adds, takes away or changes (RFC 9110 §7.6), and what each name means to us."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lbarray.http.lines import Fields

__all__ = ["METHODS", "VIA", "kind_of", "known_names", "may_trail", "reason_phrase", "without_named"]

#: What we call ourselves in Via (RFC 9110 §7.6.3).
VIA = b"1.1 lbarray"

#: The methods of HTTP that both versions serve: those that llhttp knows, without the refused ones.
METHODS = frozenset(
    b"ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
    b"PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SUBSCRIBE UNBIND UNLINK UNLOCK "
    b"UNSUBSCRIBE".split()
)

#: What a field's name means to a parser. Everything not listed is end-to-end: passed on as it came.
ORDINARY: Final = 0
HOST: Final = 1
CONTENT_LENGTH: Final = 2
TRANSFER_ENCODING: Final = 3
CONNECTION: Final = 4
UPGRADE: Final = 5
TE: Final = 6
EXPECT: Final = 7
HOP: Final = 8
FORWARDED: Final = 9
MAX_FORWARDS: Final = 10
VIA_FIELD: Final = 11
OURS: Final = 12

#: By the name in lower case.
known_names: Mapping[bytes, int] = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"te": TE,
    b"expect": EXPECT,
    # RFC 9110 §7.6.1, and Proxy-Connection, which some clients still send.
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"proxy-authenticate": HOP,
    b"proxy-authorization": HOP,
    b"http2-settings": HOP,
    # Only we say who a client has proved to be (RFC 9440 §4); gateways to CGI and WSGI do not tell "_" from "-".
    b"client-cert": OURS,
    b"client-cert-chain": OURS,
    b"client_cert": OURS,
    b"client_cert_chain": OURS,
    # What an unknown client says of itself is not passed on.
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"forwarded": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"max-forwards": MAX_FORWARDS,
    b"via": VIA_FIELD,
}


# By the name as it is spelled: clients spell the same few names, and one look is cheaper than lower() and a look.
class _Spelled(dict[bytes, int]):
    def __missing__(self, name: bytes) -> int:
        kind = known_names.get(name.lower(), ORDINARY)
        if len(self) < _SPELLED_LIMIT and len(name) < 64:
            self[name] = kind
        return kind


_SPELLED_LIMIT = 4096
#: One of the numbers above, for a name of any case.
kind_of: Callable[[bytes], int] = _Spelled().__getitem__


# RFC 9110 §6.5.1: nothing that says where a message ends, where it goes, who asks, or how its content is read.
_NO_TRAILER = frozenset(
    [
        *known_names,
        b"age", b"authorization", b"cache-control", b"content-encoding", b"content-range", b"content-type", b"cookie",
        b"date", b"expires", b"if-match", b"if-modified-since", b"if-none-match", b"if-range", b"if-unmodified-since",
        b"location", b"pragma", b"range", b"retry-after", b"set-cookie", b"trailer", b"vary", b"warning",
        b"www-authenticate",
    ]
)  # fmt: skip


def may_trail(name: bytes) -> bool:
    """May this field follow the content? Others are dropped."""
    return name.lower() not in _NO_TRAILER


def without_named(fields: Fields, connection: list[bytes]) -> Fields:
    """``fields`` without those that ``Connection`` names (RFC 9110 §7.6.1)."""
    named = {name.strip().lower() for value in connection for name in value.split(b",")}
    # A client must not be able to strip what we and the back end depend on.
    named -= {b"close", b"keep-alive", b"upgrade", b"host", b"content-length", b"te", b""}
    return [pair for pair in fields if pair[0].lower() not in named] if named else fields


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
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
    508: b"Loop Detected",
}


def reason_phrase(status: int) -> bytes:
    """For the statuses that we answer with ourselves."""
    return _REASONS.get(status, b"Error")
