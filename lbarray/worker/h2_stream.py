"""One request of an HTTP/2 connection: an exchange, and what the client may send and take of it just now."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from lbarray.http.events import Fields, ResponseHead
from lbarray.http.fields import reason_phrase
from lbarray.http.h2_frames import ErrorCode
from lbarray.http.h2_heads import response_block
from lbarray.http.h2_streams import StreamState
from lbarray.values import Outcome
from lbarray.worker.backend import BackendConnection
from lbarray.worker.exchange import Exchange

if TYPE_CHECKING:
    from lbarray.worker.client_h2 import Http2Connection

__all__ = ["Stream"]

#: Octets of responses that wait for one stream's window before its back end is paused, and when it may go on.
OUT_HIGH, OUT_LOW = 65536, 16384

#: Seconds for which the content of a request that is answered already is still read.
DRAIN_S = 2.0


class Stream(StreamState, Exchange):
    """The exchange of one request, and the stream that it came over.

    As a producer it is its client, the sender of content: pausing it means to grant it no more window.

    :ivar ready: it stands in the connection's line of streams that may send.
    :ivar draining: it is answered; what still comes of its request is dropped.
    :ivar closed: nothing more can be sent over it. :ivar blocked: its window, or the connection's, is used up.
    :ivar paused: its back end is slower than the client.
    """

    ready = closed = blocked = draining = paused = False
    _taken = 0
    _block: Fields | None = None
    _out_octets = 0
    _out_ended = False
    _out_trailers: Fields | None = None

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self.factory = factory = connection.factory
        self.connection = connection
        self.stream_id = stream_id
        self._response_timeout_s = factory.limits.response_timeout_s
        self.client_address = connection.peer.address
        self._out: deque[bytes] = deque()

    # From the client

    @property
    def upload(self) -> Stream:
        """``IPushProducer``: the client, as the sender of content."""
        return self

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.grant()

    def stopProducing(self) -> None:
        """The back end's transport is going away; the exchange hears that."""

    def received(self, data: bytes, octets: int) -> None:
        """Content; ``octets`` of the windows were used for it."""
        self._taken += octets
        if data and not self.draining:
            self.send_body(data)
        if not self.paused:
            self.grant()

    def grant(self) -> None:
        """Let the client send as much again as has been taken."""
        octets, self._taken = self._taken, 0
        if octets:
            self.connection.grant(self, octets)

    def ended(self) -> None:
        """The client's side is closed."""
        if self.draining:
            self.connection.forget(self)
        elif not self.closed:
            self.end_body()

    # The response

    def answered_and_complete(self) -> None:
        """The answer goes its own way."""

    def answer(self, status: int, fields: tuple[tuple[bytes, bytes], ...] = (), content: bytes | None = None) -> None:
        self.factory.counters.add("answers", str(status))
        if content is None:
            content = b"%d %b\n" % (status, reason_phrase(status))
            fields = (*fields, (b"content-type", b"text/plain; charset=utf-8"))
        self.status = status
        head = ResponseHead(status, list(fields))
        if status not in (204, 304):
            head.fields.append((b"content-length", b"%d" % len(content)))
        self._block = response_block(head)
        self.response_begun = True
        if content and status not in (204, 304) and not (self.request is not None and self.request.method == b"HEAD"):
            self._out.append(content)
            self._out_octets += len(content)
        self.content_end()

    def respond_interim(self, head: ResponseHead) -> None:
        if not self.closed:
            self.connection.send_block(self, response_block(head), end=False)

    def respond(self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], has_length: bool) -> None:
        self._block = response_block(head, more, via=True)
        self.connection.line_up(self)

    def content(self, data: bytes) -> None:
        self._out.append(data)
        self._out_octets += len(data)
        self.connection.line_up(self)
        if self._out_octets > OUT_HIGH and not self._client_full:
            self.pause_backend()

    def content_trailers(self, fields: Fields) -> None:
        self._out_trailers = fields

    def content_end(self) -> None:
        self._content = None
        self._out_ended = True
        self.connection.line_up(self)
        self.flush()

    def respond_cut(self) -> None:
        self.connection.reset(self, ErrorCode.INTERNAL_ERROR)

    def respond_switch(self, head: ResponseHead, backend: BackendConnection, assignment: Any, data: bytes) -> None:
        raise AssertionError("nobody asks for it over HTTP/2 (RFC 9113 §8.6)")

    def flush(self) -> None:
        self.connection.pump_soon()

    def send_some(self) -> bool:
        """One frame, if windows allow; true when there is more that could go at once."""
        connection = self.connection
        block, self._block = self._block, None
        if block is not None:
            end = self._out_ended and not self._out and self._out_trailers is None
            connection.send_block(self, block, end=end)
            if end:
                self._finished()
                return False
        if self._out:
            size = connection.window(self)
            if size <= 0:
                self.blocked = True
                return False
            data = self._take(size)
            self.sent_octets += len(data)
            end = self._out_ended and not self._out and self._out_trailers is None
            connection.send_data(self, data, end=end)
            if end:
                self._finished()
                return False
            self.deadline = self.factory.seconds() + self._response_timeout_s
            if self._client_full and self._out_octets < OUT_LOW:
                self.resume_backend()
            if self._out:
                return True
        if self._out_ended:
            if self._out_trailers is not None:
                connection.send_block(self, self._out_trailers, end=True)
            else:
                connection.send_data(self, b"", end=True)
            self._finished()
        return False

    def _take(self, size: int) -> bytes:
        """At most ``size`` octets of what waits."""
        out = self._out
        first = out.popleft()
        if len(first) > size:
            out.appendleft(first[size:])
            first = first[:size]
        elif out and len(first) + len(out[0]) <= size:
            pieces = [first]
            octets = len(first)
            while out and octets + len(out[0]) <= size:
                octets += len(out[0])
                pieces.append(out.popleft())
            first = b"".join(pieces)
        self._out_octets -= len(first)
        return first

    def _finished(self) -> None:
        """The response is out."""
        self.log_access(self.status)
        self.request = None
        if self.request_complete:
            self.connection.forget(self)
            return
        # Answered before the content was there. The rest may be declined (RFC 9113 §8.1), but clients have been seen
        # to take that for a failure, so it is read and dropped for a while.
        self.paused = False
        self.draining = True
        self.deadline = self.factory.seconds() + DRAIN_S
        self.grant()

    def late(self) -> None:
        """Its deadline has passed."""
        if self.draining:
            self.connection.reset(self, ErrorCode.NO_ERROR)
        else:
            self.exchange_late()

    def gone(self) -> None:
        """The client, or its interest in this stream, is gone."""
        self.closed = True
        if self.request is not None:
            self.log_access(self.status if self.response_begun else 499)
            self.request = None
        self._out.clear()
        self.give_up(Outcome.CLIENT_GONE)
