"""Where messages begin and end (RFC 9112 §6, §7): llhttp underneath, and what it lets pass closed on top.

Parsers call a sink as they go, so that no event objects are made per request. Framing fails closed: after
:class:`BadMessage` a parser is of no further use, and nothing of the message it was in may be forwarded.
"""

from __future__ import annotations

from typing import Any, Protocol

import httptools

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.target import normal_form

__all__ = ["RequestParser", "RequestSink", "ResponseParser", "ResponseSink"]


class RequestSink(Protocol):
    """Hears a client's requests. May raise nothing."""

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        """A request begins. ``keep_alive``: the client would send another one afterwards."""

    def request_body(self, data: bytes) -> None:
        """Some of its content."""

    def request_end(self) -> None:
        """It is complete."""


class ResponseSink(Protocol):
    """Hears a back end's responses. May raise nothing."""

    def response_head(self, head: ResponseHead) -> None:
        """A response begins; with a status below 200 another one follows it."""

    def response_body(self, data: bytes) -> None:
        """Some of its content."""

    def response_end(self, reusable: bool) -> None:
        """It is complete. ``reusable``: the connection may carry another request."""


class RequestParser:
    """Octets of one client connection to requests, in order, pipelined ones too.

    :ivar in_head: a request has begun whose head is not complete.
    """

    def __init__(self, sink: RequestSink, limits: Limits) -> None:
        self.sink = sink
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._failed: BadMessage | None = None
        self._trailing = False
        self._expects_more = True
        self.in_head = False
        self._url = b""
        self._fields: Fields = []
        self._head_octets = 0
        self._body_octets = 0

    def feed(self, data: bytes) -> None:
        """:raises BadMessage: answer it with its ``answer`` and close; the requests before it stand."""
        if self._failed is not None:
            raise self._failed
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # We do not switch protocols: the request is an ordinary one (RFC 9110 §7.8) and llhttp,
                # which has stopped for it, begins anew behind it.
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                if data:
                    continue
            except httptools.HttpParserError as error:
                self._failed = self._reason(error, data)
                raise self._failed from None
            break
        if self.in_head:
            self._head_octets += len(data)
            if self._head_octets > self._limits.max_head:
                self._failed = self._too_large()
                raise self._failed

    def _reason(self, error: Exception, data: bytes) -> BadMessage:
        inner = error.__context__
        if isinstance(inner, BadMessage):
            return inner
        # Words that are no method, and not TLS or another protocol on a port that is plain.
        if isinstance(error, httptools.HttpParserInvalidMethodError) and data.isascii() and data[:1].isalpha():
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

    # What httptools calls.

    def on_message_begin(self) -> None:
        self.in_head = True
        self._trailing = False
        self._url = b""
        self._fields = []
        self._head_octets = 0
        self._body_octets = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.max_head:
            raise BadMessage("target_too_long", f"a target of over {self._limits.max_head} octets", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._trailing:  # trailer fields may be discarded (RFC 9110 §6.5.1)
            return
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self._parser
        version = parser.get_http_version()
        if version == "1.1":
            numbers = (1, 1)
        elif version == "1.0":
            numbers = (1, 0)
        else:
            raise BadMessage("version", f"HTTP version {version}", 505)
        self.in_head = False
        self._trailing = True
        head, has_body = self._checked(parser.get_method(), numbers)
        head.has_body = has_body
        keep_alive = parser.should_keep_alive()
        self._expects_more = keep_alive
        self.sink.request_head(head, keep_alive)

    def _checked(self, method: bytes, version: tuple[int, int]) -> tuple[RequestHead, bool]:
        """The head, once nothing about it is in doubt, and whether content follows."""
        fields = self._fields
        limits = self._limits
        size = len(self._url) + 16
        hosts = 0
        host = b""
        has_body = False
        for name, value in fields:
            size += len(name) + len(value) + 4
            lower = name.lower()
            if lower == b"host":
                hosts += 1
                host = value
            elif lower == b"content-length":
                if len(value) > 19 or int(value) > limits.max_body:
                    raise BadMessage("body_too_large", f"content of over {limits.max_body} octets", 413)
                has_body = value.strip(b"0") != b""
            elif lower == b"transfer-encoding":
                # A coding besides chunked is one more thing two readers may disagree about (RFC 9112 §6.1).
                if value.lower() != b"chunked":
                    raise BadMessage("transfer_coding", f"the transfer coding {value[:40]!r}", 501)
                if version == (1, 0):
                    raise BadMessage("transfer_coding", "a transfer coding in HTTP/1.0")
                has_body = True
        if size > limits.max_head or len(fields) > limits.max_fields:
            raise self._too_large()
        if hosts != 1 and (hosts or version == (1, 1)):
            raise BadMessage("host", f"{hosts} Host fields")  # RFC 9112 §3.2
        target, authority = normal_form(method, self._url, host)
        return RequestHead(method, target, fields, version, authority), has_body

    def on_body(self, data: bytes) -> None:
        self._body_octets += len(data)
        if self._body_octets > self._limits.max_body:
            raise BadMessage("body_too_large", f"content of over {self._limits.max_body} octets", 413)
        self.sink.request_body(data)

    def on_message_complete(self) -> None:
        self.sink.request_end()


class _HeadOnly(Exception):
    """Stops llhttp behind the head of an answer to HEAD, whose length speaks of content that never comes."""


class ResponseParser:
    """Octets of one back-end connection to responses. :meth:`expect` comes before each request is sent.

    :ivar begun: something of a response has come.
    """

    def __init__(self, sink: ResponseSink, limits: Limits) -> None:
        self.sink = sink
        self._limits = limits
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: Fields = []
        self._reason_phrase = b""
        self._expecting = False
        self._head_request = False
        self._delimited = False
        self._interim = False
        self._in_head = False
        self._head_octets = 0
        self._tail = b""
        self._persistent = True
        self.begun = False

    def expect(self, method: bytes) -> None:
        """The request whose response comes next has this method."""
        self._expecting = True
        self._head_request = method == b"HEAD"
        self.begun = False
        self._in_head = False
        self._head_octets = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """:raises BadMessage: nothing further on this connection can be trusted."""
        if not self._expecting:
            raise BadMessage("unexpected", "octets from a back end that was not asked")
        self.begun = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BadMessage("upgrade", "a back end that switches protocols unasked") from None
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
                raise BadMessage("head_too_large", f"a response head of over {self._limits.max_head} octets")

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
        self._fields = []
        self._reason_phrase = b""

    def on_status(self, reason: bytes) -> None:
        self._reason_phrase += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        status: int = self._parser.get_status_code()
        version = (1, 1) if self._parser.get_http_version() == "1.1" else (1, 0)
        self._in_head = False
        self._interim = status < 200
        self._delimited = status in (204, 304)
        self._persistent = version == (1, 1)
        for name, value in self._fields:
            lower = name.lower()
            if lower == b"content-length":
                self._delimited = True
            elif lower == b"transfer-encoding":
                if value.lower() != b"chunked" or version == (1, 0):
                    raise BadMessage("transfer_coding", f"a response with the transfer coding {value[:40]!r}")
                self._delimited = True
            elif lower == b"connection" and b"close" in value.lower():
                self._persistent = False
        if status == 101:
            raise BadMessage("upgrade", "a back end that switches protocols unasked")
        self.sink.response_head(ResponseHead(status, self._fields, version, self._reason_phrase))
        if self._head_request and status >= 200:
            raise _HeadOnly

    def on_body(self, data: bytes) -> None:
        self.sink.response_body(data)

    def on_message_complete(self) -> None:
        if self._interim:
            return
        self._expecting = False
        self.sink.response_end(self._parser.should_keep_alive())
