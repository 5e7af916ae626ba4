"""Header blocks of HTTP/2 to request heads, and response heads to header blocks (RFC 9113 §8)."""

from __future__ import annotations

from collections.abc import Iterable

from lbarray.http import fields as known
from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.fields import kind_of, may_trail
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import METHODS, checked_expectation, checked_method
from lbarray.http.target import normal_form

__all__ = ["Malformed", "request_head", "request_trailers", "response_block"]

_PSEUDO = frozenset([b":method", b":scheme", b":authority", b":path"])
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"  # RFC 9110 §5.6.2, in lower case (RFC 9113 §8.2.1)
_SPACE = b" \t"


class Malformed(BadMessage):
    """A request that RFC 9113 calls malformed: its stream is reset, for there is nothing to answer."""

    def __init__(self, detail: str) -> None:
        super().__init__("h2_malformed", detail)


def _checked_field(name: bytes, value: bytes) -> None:
    # RFC 9113 §8.2.1; what HTTP/1.1 to the back end could not carry must not get that far.
    if not name or name.translate(None, _TOKEN):
        raise Malformed(f"the field name {name[:40]!r}")
    if b"\r" in value or b"\n" in value or b"\0" in value:
        raise Malformed(f"a control character in the field {name[:40]!r}")
    if value and (value[0] in _SPACE or value[-1] in _SPACE):
        raise Malformed(f"white space around the value of {name[:40]!r}")


def request_head(
    block: Iterable[tuple[bytes, bytes]], limits: Limits, *, ended: bool, trusts_forwarded: bool = False
) -> RequestHead:
    """The head of a request, once nothing about it is in doubt.

    :param ended: no content follows.
    :raises Malformed: reset the stream. :raises BadMessage: answer it with its ``answer``.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    forwarded: Fields = []
    special: list[tuple[int, bytes]] = []
    cookies: list[bytes] = []
    size = count = 0
    for name, value in block:
        size += len(name) + len(value) + 4
        count += 1
        if name[:1] == b":":
            if count > len(pseudo) + 1 or name not in _PSEUDO or name in pseudo:
                raise Malformed(f"the pseudo-header field {name[:40]!r}")
            pseudo[name] = value
            continue
        _checked_field(name, value)
        kind = kind_of(name)
        if not kind:
            if name == b"cookie":
                cookies.append(value)
            else:
                fields.append((name, value))
        elif kind == known.FORWARDED:
            if trusts_forwarded:
                forwarded.append((name, value))
        elif kind != known.OURS:
            special.append((kind, value))
    if size > limits.max_head or count > limits.max_fields:
        raise BadMessage("head_too_large", f"a head of over {limits.max_head} octets", 431)
    if cookies:
        fields.append((b"cookie", b"; ".join(cookies)))  # RFC 9113 §8.2.3
    head = _with_pseudo(pseudo, fields, special, ended=ended)
    if (head.length or 0) > limits.max_body:
        raise BadMessage("body_too_large", f"content of over {limits.max_body} octets", 413)
    if trusts_forwarded:
        head.forwarded = forwarded
    return head


def _with_pseudo(
    pseudo: dict[bytes, bytes], fields: Fields, special: list[tuple[int, bytes]], *, ended: bool
) -> RequestHead:
    method = pseudo.get(b":method", b"")
    if not method or method.translate(None, _TOKEN + b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        raise Malformed("no method")
    if method == b"CONNECT":
        checked_method(method)
    path = pseudo.get(b":path", b"")
    if not path or pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise Malformed("no path or no scheme of ours")
    if any(octet <= 32 or octet >= 127 for octet in path):
        raise Malformed("a control character in the path")
    if not path.startswith(b"/") and path != b"*":
        raise Malformed("a path that is none")
    host = pseudo.get(b":authority")
    length: int | None = 0 if ended else None
    te_trailers = False
    for kind, value in special:
        if kind == known.HOST:
            if host is not None and host.lower() != value.lower():
                raise Malformed("a host that is not the authority")
            host = value
        elif kind == known.CONTENT_LENGTH:
            if not value.isdigit() or len(value) > 19:
                raise Malformed("a length that is none")
            if ended and int(value):
                raise Malformed("a length, and no content")
            length = int(value)
            fields.append((b"content-length", b"%d" % length))
        elif kind == known.TE:
            if value.lower() != b"trailers":
                raise Malformed("TE besides trailers")
            te_trailers = True
        elif kind == known.EXPECT:
            checked_expectation(value)
            fields.append((b"expect", value))
        elif kind in (known.MAX_FORWARDS, known.VIA_FIELD):
            fields.append((b"via" if kind == known.VIA_FIELD else b"max-forwards", value))
        else:
            raise Malformed("a field of one hop")  # RFC 9113 §8.2.2
    if not host:
        raise Malformed("no authority")
    if method not in METHODS:
        raise BadMessage("method", f"the method {method.decode('latin-1')[:20]}", 501)
    checked_method(method)
    target, name, authority = normal_form(method, path, host)
    fields.insert(0, (b"host", authority))
    head = RequestHead(method, target, fields, (2, 0), name, not ended and length != 0)
    head.length = length
    head.authority = authority
    head.te_trailers = te_trailers
    return head


def request_trailers(block: Iterable[tuple[bytes, bytes]], limits: Limits) -> Fields:
    """Trailer fields that may go on.

    :raises Malformed: reset the stream.
    """
    kept: Fields = []
    size = 0
    for name, value in block:
        size += len(name) + len(value) + 4
        if size > limits.max_head or len(kept) > limits.max_fields:
            raise Malformed("too many trailer fields")
        _checked_field(name, value)
        if may_trail(name):
            kept.append((name, value))
    return kept


def response_block(head: ResponseHead, more: Iterable[tuple[bytes, bytes]] = (), via: bytes = b"") -> Fields:
    """The header block of a response (RFC 9113 §8.3.2)."""
    block = [(b":status", b"%d" % head.status)]
    for name, value in head.fields:
        block.append((name.lower(), value.strip(b" \t")))
    for name, value in more:
        block.append((name.lower(), value))
    if via:
        block.append((b"via", via))
    return block
