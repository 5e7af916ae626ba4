"""Header blocks of HTTP/2 to request heads, and response heads to header blocks (RFC 9113 §8)."""

from __future__ import annotations

from collections.abc import Iterable

from lbarray.http import fields as known
from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.fields import METHODS, VIA, kind_of, may_trail
from lbarray.http.h2_compression import first_invalid
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import checked_expectation, checked_method
from lbarray.http.target import normal_form

__all__ = ["Malformed", "request_head", "request_trailers", "response_block"]

_COLON = ord(":")
_PSEUDO = frozenset([b":method", b":scheme", b":authority", b":path"])
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"  # RFC 9110 §5.6.2
_VISIBLE = bytes(range(33, 127))
_SCHEMES = frozenset([b"https", b"http"])
_VIA = (b"via", VIA)


class _Status(dict[int, tuple[bytes, bytes]]):
    def __missing__(self, status: int) -> tuple[bytes, bytes]:
        pair = self[status] = (b":status", b"%d" % status)
        return pair


_status = _Status().__getitem__  # of three digits, so there are few


class Malformed(BadMessage):
    """A request that RFC 9113 calls malformed: its stream is reset, for there is nothing to answer."""

    def __init__(self, detail: str) -> None:
        super().__init__("h2_malformed", detail)


def _checked(block: Fields) -> None:
    place = first_invalid(block)
    if place >= 0:
        raise Malformed(f"the field {block[place][0][:40]!r}")


def request_head(block: Fields, limits: Limits, *, ended: bool, trusts_forwarded: bool = False) -> RequestHead:
    """The head of a request, once nothing about it is in doubt.

    :param ended: no content follows.
    :raises Malformed: reset the stream. :raises BadMessage: answer it with its ``answer``.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: Fields = []
    forwarded: Fields = []
    special: list[tuple[int, bytes]] = []
    cookies: list[bytes] = []
    _checked(block)
    count = len(block)
    size = 4 * count
    for name, value in block:
        size += len(name) + len(value)
        if name[0] == _COLON:
            if fields or special or cookies or name not in _PSEUDO or name in pseudo:
                raise Malformed(f"the pseudo-header field {name[:40]!r}")
            pseudo[name] = value
            continue
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
    if not method or method.translate(None, _TOKEN):
        raise Malformed("no method")
    if method == b"CONNECT":
        checked_method(method)
    path = pseudo.get(b":path", b"")
    if not path or pseudo.get(b":scheme", b"").lower() not in _SCHEMES:
        raise Malformed("no path or no scheme of ours")
    if path.translate(None, _VISIBLE):
        raise Malformed("a control character in the path")
    if not path.startswith(b"/") and path != b"*":
        raise Malformed("a path that is none")
    host = pseudo.get(b":authority")
    length: int | None = 0 if ended else None
    told = te_trailers = False
    for kind, value in special:
        if kind == known.HOST:
            if host is not None and host.lower() != value.lower():
                raise Malformed("a host that is not the authority")
            host = value
        elif kind == known.CONTENT_LENGTH:
            if not value.isdigit() or len(value) > 19:
                raise Malformed("a length that is none")
            if told:
                raise Malformed("more than one length")  # two readers may take one each
            if ended and int(value):
                raise Malformed("a length, and no content")
            told = True
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


def request_trailers(block: Fields, limits: Limits) -> Fields:
    """Trailer fields that may go on.

    :raises Malformed: reset the stream.
    """
    _checked(block)
    kept: Fields = []
    size = 0
    for name, value in block:
        size += len(name) + len(value) + 4
        if size > limits.max_head or len(kept) > limits.max_fields:
            raise Malformed("too many trailer fields")
        if name[0] == _COLON:
            raise Malformed("a pseudo-header field among trailers")
        if may_trail(name):
            kept.append((name, value))
    return kept


def response_block(head: ResponseHead, more: Iterable[tuple[bytes, bytes]] = (), *, via: bool = False) -> Fields:
    """The fields of a response's header block (RFC 9113 §8.3.2), as an encoder of header blocks takes them."""
    block = [_status(head.status), *head.fields, *more]
    if via:
        block.append(_VIA)
    return block
