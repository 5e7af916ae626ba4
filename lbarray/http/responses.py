"""Octets of a back end's connection to responses (RFC 9112). Fails closed, as :mod:`lbarray.http.requests` does."""

from __future__ import annotations

from typing import Any, Protocol

import httptools

from lbarray.http import fields as known
from lbarray.http.events import Fields, ResponseHead
from lbarray.http.fields import kind_of, may_trail, without_named
from lbarray.http.limits import Limits
from lbarray.http.plain_heads import scanner
from lbarray.http.refusals import BadMessage

__all__ = ["ResponseParser", "ResponseSink"]

#: Octets of content still to come from which on they are passed by llhttp.
_DIRECT = 16384
#: What most back ends say in ``Connection``; it names no field.
_KEEP_ALIVE = [b"keep-alive"]


class ResponseSink(Protocol):
    """Hears a back end's responses. May raise nothing."""

    def response_head(self, head: ResponseHead) -> None:
        """A response begins; with a status below 200 another one follows it."""

    def response_body(self, data: bytes) -> None:
        """Some of its content."""

    def response_trailers(self, fields: Fields) -> None:
        """Fields behind the content (RFC 9110 §6.5); not called where there are none."""

    def response_end(self, reusable: bool) -> None:
        """It is complete. ``reusable``: the connection may carry another request."""

    def response_whole(self, head: ResponseHead, content: bytes) -> None:
        """All of a response; the connection may carry another request."""
        self.response_head(head)
        if content:
            self.response_body(content)
        self.response_end(True)

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        """The back end switched protocols as it was asked to; ``data`` are the first octets of the new one."""


class _HeadOnly(Exception):
    """Stops llhttp behind the head of an answer to HEAD, whose length speaks of content that never comes."""


class ResponseParser:
    """Octets of one back-end connection to responses. :meth:`expect` comes before each request is sent.

    :ivar begun: something of a response has come.
    """

    __slots__ = (
        "_counting",
        "_delimited",
        "_direct",
        "_expecting",
        "_fields",
        "_head_octets",
        "_head_request",
        "_in_head",
        "_interim",
        "_left",
        "_limits",
        "_parser",
        "_persistent",
        "_quiet",
        "_reason_phrase",
        "_scan",
        "_size",
        "_special",
        "_switch",
        "_tail",
        "_trailers",
        "_upgrade",
        "begun",
        "sink",
    )

    def __init__(self, sink: ResponseSink, limits: Limits, *, compiled: bool = True) -> None:
        self.sink = sink
        self._scan = scanner.response if compiled and scanner is not None else None
        self._limits = limits
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: Fields = []
        self._special: list[tuple[int, bytes]] = []
        self._trailers: Fields = []
        self._reason_phrase = b""
        self._expecting = False
        self._head_request = False
        self._upgrade = False
        self._switch: ResponseHead | None = None
        self._delimited = False
        self._interim = False
        self._in_head = False
        self._head_octets = 0
        self._size = 0
        self._quiet = 0
        self._left = 0
        self._direct = False
        self._counting = False
        self._tail = b""
        self._persistent = True
        self.begun = False

    def expect(self, method: bytes, upgrade: bool = False) -> None:
        """The request whose response comes next has this method, and asks to switch protocols or not."""
        self._expecting = True
        self._head_request = method == b"HEAD"
        self._upgrade = upgrade
        self.begun = False
        self._in_head = False
        self._head_octets = 0
        self._quiet = 0
        self._tail = b""
        self._direct = False

    def feed(self, data: bytes) -> None:
        """:raises BadMessage: nothing further on this connection can be trusted."""
        if not self._expecting:
            raise BadMessage("unexpected", "octets from a back end that was not asked")
        if self._direct:
            self._content(data)
            return
        if not self.begun:
            self.begun = True
            if self._scan is not None and not self._upgrade and not self._head_request and self._plain(data):
                return
        size = len(data)
        self._quiet += size
        # What is read in one piece below the limit holds no head above it.
        self._counting = self._head_octets + size > self._limits.max_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._switch is None:
                raise BadMessage("upgrade", "a back end that switches protocols unasked") from None
            self._expecting = False
            self.sink.response_switch(self._switch, data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            inner = error.__context__
            if isinstance(inner, _HeadOnly):
                self._parser = httptools.HttpResponseParser(self)
                self._expecting = False
                # Whatever follows the head should not be there; the connection is not worth keeping then.
                seen = self._tail + data
                self.sink.response_end(self._persistent and seen.find(b"\r\n\r\n") == len(seen) - 4)
                return
            if isinstance(inner, BadMessage):
                raise inner from None
            raise BadMessage("syntax", f"a response that is not HTTP: {error}") from None
        if self._in_head:
            self._tail = (self._tail + data)[-3:]
            self._head_octets += len(data)
            if self._head_octets > self._limits.max_head:
                raise self._too_large()
        elif self._quiet > self._limits.max_head + 65536:
            raise BadMessage("chunks", "framing of chunks without content")
        # What is left is content of a known length: llhttp would only copy it.
        self._direct = self._left >= _DIRECT

    def _plain(self, data: bytes) -> bool:
        """A response of a known length, its head without anything unusual; false for any other."""
        assert self._scan is not None
        found = self._scan(data)
        if found is None:
            return False
        status, reason, lines, count, length, end = found
        limits = self._limits
        left = len(data) - end
        if end > limits.max_head or count > limits.max_fields or left > length:
            return False  # llhttp says what is wrong
        self._delimited = True
        self._interim = False
        head = ResponseHead(status, None, (1, 1), reason, lines)
        head.has_length = True
        if left == length:
            self._expecting = False
            self.sink.response_whole(head, data[end:])
            return True
        self._persistent = True
        self._left = length - left
        self._direct = True
        self.sink.response_head(head)
        if left:
            self.sink.response_body(data[end:])
        return True

    def _content(self, data: bytes) -> None:
        """Some of a long content, as it was read."""
        size = len(data)
        if size < self._left:
            self._left -= size
            self.sink.response_body(data)
            return
        left, self._left, self._direct = self._left, 0, False
        self._expecting = False
        self._parser = httptools.HttpResponseParser(self)  # the old one still waits for the content
        self.sink.response_body(data[:left] if size > left else data)
        # Octets behind the response were not asked for: the connection is not worth keeping.
        self.sink.response_end(self._persistent and size == left)

    def _too_large(self) -> BadMessage:
        return BadMessage("head_too_large", f"a response head of over {self._limits.max_head} octets")

    def eof(self) -> bool:
        """The connection has ended; true when that completes the response (RFC 9112 §6.3, rule 8)."""
        if self._expecting and self.begun and not self._in_head and not self._delimited and not self._interim:
            self._expecting = False
            self.sink.response_end(False)
            return True
        return False

    # What httptools calls.

    def on_message_begin(self) -> None:
        if not self._expecting:
            raise BadMessage("unexpected", "a second response to one request")
        self._in_head = True
        self._left = 0
        self._size = 0
        self._fields = []
        self._special = []
        self._reason_phrase = b""

    def on_status(self, reason: bytes) -> None:
        self._reason_phrase += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        kind = kind_of(name)
        if self._counting or not self._in_head:
            self._size += len(name) + len(value) + 4
        if not self._in_head:
            if self._size > self._limits.max_head or len(self._trailers) >= self._limits.max_fields:
                raise self._too_large()
            if may_trail(name):
                self._trailers.append((name, value))
        elif not kind or kind >= known.FORWARDED:
            self._fields.append((name, value))
        elif kind != known.HOP:
            self._special.append((kind, value))

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        version = (1, 1) if self._parser.get_http_version() == "1.1" else (1, 0)
        fields = self._fields
        if self._size > self._limits.max_head or len(fields) > self._limits.max_fields:
            raise self._too_large()
        self._in_head = False
        self._size = 0
        self._interim = status < 200
        self._delimited = status in (204, 304)
        self._persistent = version == (1, 1)
        upgrade = b""
        has_length = False
        connection: list[bytes] = []
        for kind, value in self._special:
            if kind == known.CONTENT_LENGTH:
                self._delimited = True
                if status != 204 and status >= 200:  # RFC 9110 §8.6
                    fields.append((b"Content-Length", value))
                    has_length = True
                    self._left = int(value)
            elif kind == known.TRANSFER_ENCODING:
                if value.strip(b" \t").lower() != b"chunked" or version == (1, 0):
                    raise BadMessage("transfer_coding", f"a response with the transfer coding {value[:40]!r}")
                self._delimited = True
            elif kind == known.CONNECTION:
                connection.append(value)
                if b"close" in value.lower():
                    self._persistent = False
            elif kind == known.UPGRADE:
                upgrade = value
        if connection and connection != _KEEP_ALIVE:
            fields = without_named(fields, connection)
        head = ResponseHead(status, fields, version, self._reason_phrase)
        head.has_length = has_length
        if status == 101:
            if not (self._upgrade and upgrade and self._parser.should_upgrade()):
                raise BadMessage("upgrade", "a back end that switches protocols unasked")
            head.upgrade = upgrade
            self._switch = head
            return
        self.sink.response_head(head)
        if self._head_request and status >= 200:
            raise _HeadOnly

    def on_body(self, data: bytes) -> None:
        self._quiet = 0
        self._left -= len(data)
        self.sink.response_body(data)

    def on_message_complete(self) -> None:
        if self._interim:
            return
        self._expecting = False
        self._left = 0
        if self._trailers:
            trailers, self._trailers = self._trailers, []
            self.sink.response_trailers(trailers)
        self.sink.response_end(self._parser.should_keep_alive())
