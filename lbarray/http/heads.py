"""Heads as octets: what goes on to a back end, and what goes back to a client (RFC 9112 §3, §4)."""

from __future__ import annotations

from collections.abc import Iterable

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.http.fields import VIA, end_to_end, reason_phrase

__all__ = ["forwarded_fields", "interim_octets", "own_answer", "request_octets", "response_octets"]

#: Fields that say who the client is; what an unknown client says of itself is not passed on.
FORWARDED = frozenset([b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"x-real-ip"])


def forwarded_fields(client: str, *, tls: bool) -> bytes:
    """The lines that are the same for every request of a client's connection."""
    scheme = b"https" if tls else b"http"
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nVia: %b\r\n" % (client.encode(), scheme, VIA)


def request_octets(
    head: RequestHead, forwarded: bytes, default_host: str, target: bytes | None = None
) -> tuple[bytes, bool]:
    """The head for the back end, and whether the content goes on in chunks.

    :param forwarded: of :func:`forwarded_fields`.
    :param default_host: for a request of HTTP/1.0 that names none.
    :param target: instead of the one that the client asked.
    """
    kept, chunked, _ = end_to_end(head)
    parts = [head.method, b" ", target or head.target, b" HTTP/1.1\r\n"]
    add = parts.extend
    host = b""
    for name, value in kept:
        lower = name.lower()
        if lower == b"host":
            host = value
        elif lower in FORWARDED or (lower == b"expect" and head.version == (1, 0)):
            continue
        add((name, b": ", value, b"\r\n"))
    if not host:
        host = default_host.encode()
        add((b"Host: ", host, b"\r\n"))
    add((b"X-Forwarded-Host: ", host, b"\r\n", forwarded))
    parts.append(b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n")
    return b"".join(parts), chunked


def interim_octets(head: ResponseHead) -> bytes:
    """A response below 200, as it is passed on (RFC 9110 §15.2)."""
    kept, _, _ = end_to_end(head)
    lines = b"".join(b"%b: %b\r\n" % pair for pair in kept)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, lines)


def response_octets(
    request: RequestHead,
    head: ResponseHead,
    more: Iterable[tuple[bytes, bytes]],
    *,
    keep_alive: bool,
) -> tuple[bytes, bool, bool]:
    """The head for the client; whether the content goes in chunks; whether the connection can stay open.

    :param more: fields to add.
    """
    status = head.status
    kept, _, has_length = end_to_end(head)
    chunked = False
    if not has_length and request.method != b"HEAD" and status not in (204, 304):
        if request.version >= (1, 1):
            chunked = True
        else:
            keep_alive = False  # its end is the connection's (RFC 9112 §6.3)
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, head.reason)]
    add = parts.extend
    for name, value in kept:
        add((name, b": ", value, b"\r\n"))
    for name, value in more:
        add((name, b": ", value, b"\r\n"))
    add((b"Via: ", VIA, b"\r\n"))
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
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    length = b"" if status in (204, 304) else b"Content-Length: %d\r\n" % len(content)
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n%b" % (
        status,
        reason,
        lines,
        length,
        b"" if keep_alive else b"Connection: close\r\n",
        b"" if head_only or status in (204, 304) else content,
    )
