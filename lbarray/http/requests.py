"""Octets of a client's connection to requests (RFC 9112): llhttp underneath, and what it lets pass closed on top.

A parser calls a sink as it goes, so that no event objects are made per request. Framing fails closed: after
:class:`BadMessage` a parser is of no further use, and nothing of the message it was in may be forwarded.
"""

from __future__ import annotations

from typing import Protocol

import httptools

from lbarray.http import fields as known
from lbarray.http.events import Fields, RequestHead
from lbarray.http.fields import kind_of, may_trail, without_named
from lbarray.http.limits import Limits
from lbarray.http.plain_heads import scanner
from lbarray.http.refusals import BadMessage
from lbarray.http.target import normal_authority, normal_form

__all__ = ["RequestParser", "RequestSink", "checked_expectation", "checked_method"]

#: Fields of a request that end here.
_DROPPED = (known.HOP, known.OURS)

# What llhttp knows besides the methods of HTTP (RTSP, Icecast), and those that we do not serve.
_REFUSED_METHODS = frozenset(
    b"ANNOUNCE CONNECT DESCRIBE FLUSH GET_PARAMETER PAUSE PLAY PRI RECORD REDIRECT SETUP SET_PARAMETER SOURCE "
    b"TEARDOWN TRACE".split()
)

# Framing of chunks, their extensions and trailers: a fixed amount, and some for each octet of content, as short
# chunks are legal. Beyond that it is no content but a way to keep us busy.
_CHUNK_OVERHEAD = 65536
_CHUNK_OVERHEAD_PER_OCTET = 16

#: Times that our name may stand in Via before a request is taken to go round in circles.
_LOOPS = 4


class RequestSink(Protocol):
    """Hears a client's requests. May raise nothing."""

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        """A request begins. ``keep_alive``: the client would send another one afterwards."""

    def request_body(self, data: bytes) -> None:
        """Some of its content."""

    def request_trailers(self, fields: Fields) -> None:
        """Fields behind the content (RFC 9110 §6.5); not called where there are none."""

    def request_end(self) -> None:
        """It is complete."""

    def request_whole(self, head: RequestHead) -> None:
        """A request without content, complete; the client would send another one afterwards."""
        self.request_head(head, True)
        self.request_end()


def checked_method(method: bytes) -> None:
    """:raises BadMessage: with the status 501: a method that we do not serve (RFC 9110 §9.1)."""
    if method in _REFUSED_METHODS:
        raise BadMessage("method", f"the method {method.decode('latin-1')[:20]}", 501)


def checked_expectation(value: bytes) -> None:
    """:raises BadMessage: with the status 417: something besides 100-continue (RFC 9110 §10.1.1)."""
    if value.strip().lower() != b"100-continue":
        raise BadMessage("expectation", f"the expectation {value[:40]!r}", 417)


class RequestParser:
    """Octets of one client connection to requests, in order, pipelined ones too.

    :param upgrades: lower-case names of the protocols that a client may switch to.
    :param trusts_forwarded: the client is a hop whose word on forwarding counts.
    :param compiled: read plain heads by :mod:`lbarray.http.plain_heads`, where that is built.
    :ivar in_head: a request has begun whose head is not complete.
    """

    __slots__ = (
        "_before_body",
        "_between",
        "_body_octets",
        "_chunked",
        "_expects_more",
        "_failed",
        "_fields",
        "_forwarded",
        "_head_octets",
        "_held",
        "_limits",
        "_loops",
        "_messages",
        "_overhead",
        "_parser",
        "_scan",
        "_size",
        "_special",
        "_trailers",
        "_trailing",
        "_trusts_forwarded",
        "_upgrades",
        "_url",
        "in_head",
        "sink",
    )

    def __init__(
        self,
        sink: RequestSink,
        limits: Limits,
        *,
        upgrades: frozenset[bytes] = frozenset(),
        trusts_forwarded: bool = False,
        compiled: bool = True,
    ) -> None:
        self.sink = sink
        self._scan = scanner.request if compiled and scanner is not None else None
        self._limits = limits
        self._upgrades = upgrades
        self._trusts_forwarded = trusts_forwarded
        self._parser = httptools.HttpRequestParser(self)
        self._failed: BadMessage | None = None
        self._held: bytes | None = None
        self._before_body = False
        self._expects_more = True
        self._between = True
        self._messages = 0
        self.in_head = False
        self._trailing = False
        self._chunked = False
        self._url = b""
        self._fields: Fields = []
        self._special: list[tuple[int, bytes]] = []
        self._forwarded: Fields = []
        self._trailers: Fields = []
        self._size = 0
        self._head_octets = 0
        self._body_octets = 0
        self._overhead = 0
        self._loops = 0

    def feed(self, data: bytes) -> None:
        """:raises BadMessage: answer it with its ``answer`` and close; the requests before it stand."""
        if self._failed is not None:
            raise self._failed
        if self._held is not None:
            self._hold(data)
            return
        if self._between and self._expects_more and self._scan is not None:
            at = self._plain(data)
            if at == len(data):
                return
            if at:
                self._messages += 1
                data = data[at:]
        messages = self._messages
        between = self._between
        body_octets = self._body_octets
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._behind_upgrade(data[upgrade.args[0] :])
                if data:
                    continue
            except httptools.HttpParserError as error:
                self._failed = self._reason(error, data)
                raise self._failed from None
            break
        if self.in_head:
            if self._messages == messages:
                self._head_octets += len(data)
            elif between and self._messages == messages + 1:
                self._head_octets = len(data)
            # Otherwise it began behind other octets of this reading, which do not count.
            if self._head_octets > self._limits.max_head:
                self._failed = self._too_large()
                raise self._failed
        elif self._chunked:
            self._count_overhead(len(data), body_octets)

    def _plain(self, data: bytes) -> int:
        """Requests without content and without anything unusual; where others begin."""
        scan, limits = self._scan, self._limits
        assert scan is not None
        at, size = 0, len(data)
        while at < size:
            found = scan(data, at)
            if found is None:
                break
            method, target, normal, host, lines, forwarded, agent, referer, count, end = found
            if end - at > limits.max_head or count > limits.max_fields:
                break  # llhttp says what is wrong
            at = end
            try:
                if normal:
                    name, authority = normal_authority(host)
                else:
                    target, name, authority = normal_form(method, target, host)
            except BadMessage as error:
                self._failed = error
                raise
            head = RequestHead(method, target, None, (1, 1), name, False, lines)
            head.authority = authority
            head.agent = agent or b""
            head.referer = referer or b""
            if self._trusts_forwarded:
                head.forwarded = forwarded or []
            self.sink.request_whole(head)
        return at

    def _reason(self, error: Exception, data: bytes) -> BadMessage:
        inner = error.__context__
        if isinstance(inner, BadMessage):
            return inner
        # Words that are no method, and not TLS or another protocol on a port that is plain: not behind another request.
        spoken = self._messages > 1 or (data.isascii() and data[:1].isalpha())
        if isinstance(error, httptools.HttpParserInvalidMethodError) and spoken:
            return BadMessage("method", "a method that HTTP does not have", 501)
        if not self._expects_more:
            return BadMessage("after_close", "more after a request that was to be the last")
        if "HTTP version" in str(error):
            return BadMessage("version", "another version of HTTP", 505)
        if "overflow" in str(error):
            return BadMessage("body_too_large", "a length beyond all measure", 413)
        return BadMessage("syntax", str(error) or type(error).__name__)

    def _too_large(self) -> BadMessage:
        return BadMessage("head_too_large", f"a head of over {self._limits.max_head} octets", 431)

    def _count_overhead(self, octets: int, before: int) -> None:
        gained = self._body_octets - before
        # A reading that begins within an earlier message counts for more than it is; there is room for that.
        self._overhead += octets - gained if gained >= 0 else 0
        if self._overhead > _CHUNK_OVERHEAD + _CHUNK_OVERHEAD_PER_OCTET * self._body_octets:
            self._failed = BadMessage("chunks", "more framing of chunks than content")
            raise self._failed

    # Upgrade (RFC 9110 §7.8)

    def _behind_upgrade(self, data: bytes) -> bytes:
        """llhttp has stopped for a request that would switch protocols. What it is to read next."""
        self._parser = httptools.HttpRequestParser(self)
        if self._before_body:
            # Nobody switches with content under way: an ordinary request, but llhttp has passed its content over.
            length = self._content_length()
            framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            return data
        if self._held is not None:
            self._hold(data)
            return b""
        return data

    def _content_length(self) -> int | None:
        for kind, value in self._special:
            if kind == known.CONTENT_LENGTH:
                return int(value)
        return None

    def _hold(self, data: bytes) -> None:
        assert self._held is not None
        self._held += data
        if len(self._held) > self._limits.max_head + 65536:
            self._failed = BadMessage("upgrade", "too much ahead of the answer to an upgrade")
            raise self._failed

    def switch(self) -> bytes:
        """The protocol was switched: what has come of the new one already. No further use of this parser."""
        held, self._held = self._held or b"", None
        return held

    def go_on(self) -> None:
        """The protocol was not switched: what follows is the next request.

        :raises BadMessage: as :meth:`feed`.
        """
        held, self._held = self._held, None
        if held:
            self.feed(held)

    # What httptools calls.

    def on_message_begin(self) -> None:
        self.in_head = True
        self._between = False
        self._messages += 1
        self._trailing = False
        self._chunked = False
        self._url = b""
        self._head_octets = 0
        self._size = 0
        self._body_octets = 0
        if self._before_body:
            return
        self._fields = []
        self._special = []
        self._loops = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.max_head:
            raise BadMessage("target_too_long", f"a target of over {self._limits.max_head} octets", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._trailing:
            self._trailer(name, value)
            return
        kind = kind_of(name)
        if not kind:
            self._fields.append((name, value))
        elif kind == known.FORWARDED:
            if self._trusts_forwarded:
                self._forwarded.append((name, value))
        elif kind not in _DROPPED and not self._before_body:
            self._special.append((kind, value))

    def _trailer(self, name: bytes, value: bytes) -> None:
        if self._size > self._limits.max_head or len(self._trailers) >= self._limits.max_fields:
            raise self._too_large()
        if may_trail(name):
            self._trailers.append((name, value))

    def on_headers_complete(self) -> None:
        self.in_head = False
        self._trailing = True
        if self._before_body:  # the head that we wrote ourselves
            self._before_body = False
            self._chunked = self._content_length() is None
            self._overhead = 0
            return
        parser = self._parser
        version = parser.get_http_version()
        if version == "1.1":
            numbers = (1, 1)
        elif version == "1.0":
            numbers = (1, 0)
        else:
            raise BadMessage("version", f"HTTP version {version}", 505)
        head = self._checked(parser.get_method(), numbers)
        keep_alive = parser.should_keep_alive()
        self._expects_more = keep_alive
        if parser.should_upgrade():
            if head.has_body:
                self._before_body = True
                head.upgrade = b""
            elif head.upgrade:
                self._held = b""
        else:
            head.upgrade = b""
        self.sink.request_head(head, keep_alive)

    def _checked(self, method: bytes, version: tuple[int, int]) -> RequestHead:
        """The head, once nothing about it is in doubt."""
        limits = self._limits
        fields = self._fields
        if self._size + len(self._url) > limits.max_head or len(fields) + len(self._special) > limits.max_fields:
            raise self._too_large()
        if method in _REFUSED_METHODS:
            checked_method(method)
        host: bytes | None = None
        length: int | None = 0
        upgrade = b""
        te_trailers = False
        connection: list[bytes] | None = None
        for kind, value in self._special:
            if kind == known.HOST:
                if host is not None:
                    raise BadMessage("host", "more than one Host")  # RFC 9112 §3.2
                host = value
            elif kind == known.CONTENT_LENGTH:
                digits = value.strip(b" \t")
                if len(digits) > 19 or int(digits) > limits.max_body:
                    raise BadMessage("body_too_large", f"content of over {limits.max_body} octets", 413)
                length = int(digits)
                fields.append((b"Content-Length", b"%d" % length))
            elif kind == known.TRANSFER_ENCODING:
                # A coding besides chunked is one more thing two readers may disagree about (RFC 9112 §6.1).
                if value.strip(b" \t").lower() != b"chunked":
                    raise BadMessage("transfer_coding", f"the transfer coding {value[:40]!r}", 501)
                if version == (1, 0):
                    raise BadMessage("transfer_coding", "a transfer coding in HTTP/1.0")
                length = None
                self._chunked = True
                self._overhead = 0
            elif kind == known.CONNECTION:
                if connection is None:
                    connection = []
                connection.append(value)
            elif kind == known.UPGRADE:
                upgrade = upgrade or next(
                    (name for name in map(bytes.strip, value.split(b",")) if name.lower() in self._upgrades), b""
                )
            elif kind == known.TE:
                te_trailers = te_trailers or b"trailers" in value.lower()
            else:
                self._unusual(kind, value, method, version)
        if connection is not None:
            fields = without_named(fields, connection)
        if host is None and version == (1, 1):
            raise BadMessage("host", "no Host")  # RFC 9112 §3.2
        target, name, authority = normal_form(method, self._url, host)
        if authority:
            fields.insert(0, (b"Host", authority))
        head = RequestHead(method, target, fields, version, name, length != 0)
        head.length = length
        head.authority = authority
        if version == (1, 1):
            head.upgrade = upgrade
        head.te_trailers = te_trailers
        if self._trusts_forwarded:
            head.forwarded, self._forwarded = self._forwarded, []
        return head

    def _unusual(self, kind: int, value: bytes, method: bytes, version: tuple[int, int]) -> None:
        """Fields that few requests have."""
        if kind == known.EXPECT:
            if version == (1, 0):
                return  # RFC 9110 §10.1.1
            checked_expectation(value)
            self._fields.append((b"Expect", value))
        elif kind == known.MAX_FORWARDS:
            if method == b"OPTIONS" and value.isdigit() and len(value) < 10:  # RFC 9110 §7.6.2
                if not int(value):
                    raise BadMessage("max_forwards", "a request that is to go no further", 501)
                value = b"%d" % (int(value) - 1)
            self._fields.append((b"Max-Forwards", value))
        elif kind == known.VIA_FIELD:
            self._loops += value.count(b" lbarray")
            if self._loops >= _LOOPS:
                raise BadMessage("loop", "a request that has come through here before", 508)
            self._fields.append((b"Via", value))

    def on_body(self, data: bytes) -> None:
        self._body_octets += len(data)
        if self._body_octets > self._limits.max_body:
            raise BadMessage("body_too_large", f"content of over {self._limits.max_body} octets", 413)
        self.sink.request_body(data)

    def on_message_complete(self) -> None:
        if self._before_body:
            return
        self._between = True
        self._chunked = False
        if self._trailers:
            trailers, self._trailers = self._trailers, []
            self.sink.request_trailers(trailers)
        self.sink.request_end()
