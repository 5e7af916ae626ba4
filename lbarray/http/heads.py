"""Heads as octets: what goes on to a back end, and what goes back to a client (RFC 9112 §3, §4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.fields import VIA, reason_phrase
from lbarray.http.lines import lines_of

__all__ = ["interim_octets", "own_answer", "request_octets", "response_octets", "switch_octets", "trailer_octets"]

_VIA = b"Via: %b\r\n" % VIA


def request_octets(
    head: RequestHead, forwarded: bytes, default_host: str, target: bytes | None = None
) -> tuple[bytes, bool]:
    """The head for the back end, and whether the content goes on in chunks.

    :param forwarded: of :mod:`lbarray.http.forwarding`.
    :param default_host: for a request of HTTP/1.0 that names none.
    :param target: instead of the one that the client asked.
    """
    lines = head.lines
    if lines is None:
        first = b"" if head.host else b"Host: %b\r\n" % default_host.encode()
        parts = [head.method, b" ", target or head.target, b" HTTP/1.1\r\n", lines_of(head.fields), first, forwarded]
    else:
        parts = [
            head.method,
            b" ",
            target or head.target,
            b" HTTP/1.1\r\nHost: ",
            head.authority,
            b"\r\n",
            lines,
            forwarded,
        ]
    if head.upgrade:
        parts.append(b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % head.upgrade)
        return b"".join(parts), False
    if head.te_trailers:
        parts.append(b"Connection: TE\r\nTE: trailers\r\n")
    chunked = head.length is None
    parts.append(b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
    return b"".join(parts), chunked


def trailer_octets(fields: Fields) -> bytes:
    """The last chunk with trailer fields behind it (RFC 9112 §7.1.2)."""
    return b"0\r\n%b\r\n" % lines_of(fields)


def interim_octets(head: ResponseHead) -> bytes:
    """A response below 200, as it is passed on (RFC 9110 §15.2)."""
    lines = lines_of(head.fields)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, lines)


def switch_octets(head: ResponseHead, more: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The 101 behind which another protocol begins (RFC 9110 §15.2.2)."""
    lines = lines_of([*head.fields, *more])
    return b"HTTP/1.1 101 %b\r\n%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (head.reason, lines, head.upgrade)


def response_octets(
    request: RequestHead,
    head: ResponseHead,
    more: Collection[tuple[bytes, bytes]],
    *,
    has_length: bool,
    keep_alive: bool,
) -> tuple[bytes, bool, bool]:
    """The head for the client; whether the content goes in chunks; whether the connection can stay open.

    :param more: fields to add.
    :param has_length: Content-Length is among the fields.
    """
    status = head.status
    chunked = False
    if not has_length and request.method != b"HEAD" and status not in (204, 304):
        if request.version >= (1, 1):
            chunked = True
        else:
            keep_alive = False  # its end is the connection's (RFC 9112 §6.3)
    lines = head.lines
    if lines is None:
        lines = lines_of(head.fields)
    if more:
        lines += lines_of(more)
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, head.reason), lines, _VIA]
    if chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if not keep_alive:
        parts.append(b"Connection: close\r\n")
    elif request.version == (1, 0):
        parts.append(b"Connection: keep-alive\r\n")
    parts.append(b"\r\n")
    return b"".join(parts), chunked, keep_alive


def own_answer(
    status: int,
    *,
    head_only: bool,
    keep_alive: bool,
    fields: Iterable[tuple[bytes, bytes]] = (),
    content: bytes | None = None,
) -> bytes:
    """A whole response of our own; without ``content``, a line of text that names its status."""
    reason = reason_phrase(status)
    if content is None:
        content = b"%d %b\n" % (status, reason)
        fields = (*fields, (b"Content-Type", b"text/plain; charset=utf-8"))
    lines = lines_of(fields)
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(content)
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n%b" % (
        status,
        reason,
        lines,
        length,
        b"" if keep_alive else b"Connection: close\r\n",
        b"" if head_only or status in (204, 304) else content,
    )
