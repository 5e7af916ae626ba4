"""Clients' connections of HTTP/2 (RFC 9113): many exchanges over one connection, each at its back end's pace.

The library ``h2`` keeps the state of connection and streams; here is what a proxy adds: one :class:`Stream` is the
exchange of one request, octets are only taken from a back end as fast as the client's windows let them go, and only
taken from a client as fast as the back end reads.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from hpack.exceptions import HPACKError
from hyperframe.frame import Frame, GoAwayFrame
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.fields import VIA, reason_phrase
from lbarray.http.h2_frames import Flood, FrameMeter
from lbarray.http.h2_heads import Malformed, request_head, request_trailers, response_block
from lbarray.http.refusals import BadMessage
from lbarray.values import Outcome
from lbarray.worker.backend import BackendConnection
from lbarray.worker.exchange import Exchange
from lbarray.worker.peer import Peer

__all__ = ["Http2Connection", "Stream"]

#: Octets of responses that wait for one stream's window before its back end is paused, and when it may go on.
OUT_HIGH, OUT_LOW = 65536, 16384

#: Octets of content that are gathered before they are written.
WRITE_OCTETS = 65536

#: Seconds for which the content of a request that is answered already is still read.
DRAIN_S = 2.0

#: Octets that all streams of a connection together may send ahead of their back ends.
CONNECTION_WINDOW = 1 << 20
STREAM_WINDOW = 65535


_CODES = {"preface": ErrorCodes.PROTOCOL_ERROR, "frame_size": ErrorCodes.FRAME_SIZE_ERROR}


class _Connection(H2Connection):
    """``h2`` with two habits changed."""

    # It remembers how each of the last closed streams ended; fewer will do.
    MAX_CLOSED_STREAMS = 1024

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        heard = super()._receive_goaway_frame(frame)
        # It would neither send nor understand anything more, but the streams in hand go on (RFC 9113 §6.8).
        self.state_machine.state = ConnectionState.SERVER_OPEN
        return heard


class _Upload:
    """One stream's client as the sender of content: pausing it means to grant it no more window."""

    __slots__ = ("_stream", "paused")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self._stream.grant()

    def stopProducing(self) -> None:
        """The back end's transport is going away; the exchange hears that."""


class Stream(Exchange):
    """The exchange of one request, and the stream that it came over.

    :ivar ready: it stands in the connection's line of streams that may send.
    :ivar draining: it is answered; what still comes of its request is dropped.
    :ivar closed: nothing more can be sent over it. :ivar blocked: its window, or the connection's, is used up.
    """

    def __init__(self, connection: Http2Connection, stream_id: int) -> None:
        self.factory = connection.factory
        self.connection = connection
        self.stream_id = stream_id
        self.upload = _Upload(self)
        self.deadline = self.factory.seconds() + self.factory.limits.response_timeout_s
        self.ready = False
        self.closed = False
        self.blocked = False
        self.draining = False
        self._response_timeout_s = self.factory.limits.response_timeout_s
        self.client_address = connection.peer.address
        self._ungranted = 0
        self._block: Fields | None = None
        self._out: deque[bytes] = deque()
        self._out_octets = 0
        self._out_ended = False
        self._out_trailers: Fields | None = None

    # From the client

    def received(self, data: bytes, octets: int) -> None:
        """Content; ``octets`` of the windows were used for it."""
        self._ungranted += octets
        if data and not self.draining:
            self.send_body(data)
        if not self.upload.paused:
            self.grant()

    def grant(self) -> None:
        """Let the client send as much again as has been taken."""
        octets, self._ungranted = self._ungranted, 0
        if octets:
            self.connection.grant(self.stream_id, octets)

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
        head = ResponseHead(status, [(name.lower(), value) for name, value in fields])
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
            self.connection.send_block(self.stream_id, response_block(head), end=False)

    def respond(self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], has_length: bool) -> None:
        self._block = response_block(head, more, VIA)
        self.connection.line_up(self)

    def content(self, data: bytes) -> None:
        self._out.append(data)
        self._out_octets += len(data)
        self.connection.line_up(self)
        if self._out_octets > OUT_HIGH and not self._client_full:
            self.pause_backend()

    def content_trailers(self, fields: Fields) -> None:
        self._out_trailers = [(name.lower(), value) for name, value in fields]

    def content_end(self) -> None:
        self._content = None
        self._out_ended = True
        self.connection.line_up(self)
        self.flush()

    def respond_cut(self) -> None:
        self.connection.reset(self, ErrorCodes.INTERNAL_ERROR)

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
            connection.send_block(self.stream_id, block, end=end)
            if end:
                self._finished()
                return False
        if self._out:
            size = connection.window(self.stream_id)
            if size <= 0:
                self.blocked = True
                return False
            data = self._take(size)
            self.sent_octets += len(data)
            end = self._out_ended and not self._out and self._out_trailers is None
            connection.send_data(self.stream_id, data, end=end)
            self.deadline = self.factory.seconds() + self._response_timeout_s
            if end:
                self._finished()
                return False
            if self._client_full and self._out_octets < OUT_LOW:
                self.resume_backend()
            if self._out:
                return True
        if self._out_ended:
            if self._out_trailers is not None:
                connection.send_block(self.stream_id, self._out_trailers, end=True)
            else:
                connection.send_data(self.stream_id, b"", end=True)
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
        self.upload.paused = False
        self.draining = True
        self.deadline = self.factory.seconds() + DRAIN_S
        self.grant()

    def late(self) -> None:
        """Its deadline has passed."""
        if self.draining:
            self.connection.reset(self, ErrorCodes.NO_ERROR)
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


@implementer(IPushProducer)
class Http2Connection:
    """The streams of one client's connection. ``front`` is its Protocol, which passes on what it hears."""

    def __init__(self, front: Any, peer: Peer) -> None:
        self.factory = front.factory
        self.peer = peer
        self.streams: dict[int, Stream] = {}
        self._front = front
        self._transport = front.transport
        self._paused = False
        self._closing = False
        self._going = False
        self._soon = False
        self._line: deque[Stream] = deque()
        self._last_id = 0
        limits = self._limits = self.factory.limits
        self._meter = FrameMeter(
            max_block=2 * limits.max_head, control_rate=limits.h2_control_per_s, reset_rate=limits.h2_resets_per_s
        )
        self._block_since: float | None = None
        # The checks of header blocks are our own: they tell a bad stream from a bad connection.
        self._h2 = _Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_inbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.h2_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.max_head,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.ENABLE_PUSH: 0,
            },
        )
        # Somewhat more than we say: what is a little too large is answered with 431 instead of a dead connection.
        self._h2.decoder.max_header_list_size = 2 * limits.max_head

    def start(self) -> None:
        """Say our settings; the client's octets, the preface first, come by :meth:`from_client`."""
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._transport.registerProducer(self, True)
        self._front.deadline = self.factory.seconds() + self._limits.header_timeout_s
        self._write()

    # From the client

    def from_client(self, data: bytes) -> None:
        """Octets of the client."""
        if self._closing:
            return
        now = self.factory.seconds()
        try:
            self._meter.feed(data, now)
            for event in self._h2.receive_data(data):
                self._heard(event)
        except Flood as error:
            self._end(error.why, _CODES.get(error.why, ErrorCodes.ENHANCE_YOUR_CALM))
            return
        except ProtocolError as error:
            # h2 has written GOAWAY already, for broken compression with the wrong code (RFC 9113 §4.3).
            code = ErrorCodes.COMPRESSION_ERROR if isinstance(error.__cause__, HPACKError) else error.error_code
            self._end(type(error).__name__, code)
            return
        if not self._meter.in_block:
            self._block_since = None
        elif self._block_since is None:
            self._block_since = now
        self.pump()
        if not self._closing:
            self._set_deadline(now)

    def _set_deadline(self, now: float) -> None:
        if self.streams or self._block_since is not None:
            self._front.deadline = 0.0  # looked at in each sweep
        elif self._front.deadline <= 0.0 or self._last_id:
            self._front.deadline = now + self._limits.keepalive_timeout_s

    def _heard(self, event: Event) -> None:
        kind = type(event)
        if kind is DataReceived:
            self._data(event)  # type: ignore[arg-type]
        elif kind is RequestReceived:
            self._request(event)  # type: ignore[arg-type]
        elif kind is StreamEnded:
            stream = self.streams.get(event.stream_id)  # type: ignore[attr-defined]
            if stream is not None:
                stream.ended()
        elif kind is WindowUpdated:
            self._window_opened(event.stream_id)  # type: ignore[attr-defined]
        elif kind is RemoteSettingsChanged:
            self._window_opened(0)
        elif kind is StreamReset:
            stream = self.streams.pop(event.stream_id, None)  # type: ignore[attr-defined]
            if stream is not None:
                self.factory.counters.add("h2_resets", "client")
                stream.gone()
            if not event.remote_reset:  # type: ignore[attr-defined]
                self._meter.reset()
        elif kind is TrailersReceived:
            self._trailers(event)  # type: ignore[arg-type]
        elif kind is ConnectionTerminated:
            self._going = True

    def _request(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None and event.headers is not None
        if self._going:
            self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._last_id = stream_id
        ended = event.stream_ended is not None
        stream = self.streams[stream_id] = Stream(self, stream_id)
        block: Any = event.headers
        try:
            head = request_head(block, self._limits, ended=ended, trusts_forwarded=self.peer.trusted)
        except Malformed as error:
            self.factory.counters.add("bad_requests", error.why)
            self._meter.reset()
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
            return
        except BadMessage as error:
            self.factory.counters.add("bad_requests", error.why)
            stream.request_complete = ended
            stream.answer(error.answer)
            return
        self._begin(stream, head)

    def _begin(self, stream: Stream, head: RequestHead) -> None:
        stream.lines = self.peer.lines(head)
        stream.client_address = self.peer.address
        clients = self.factory.clients
        if clients.limits_requests:
            stream.asking = clients.find(self.peer.address.host) if head.forwarded else self._front.counted
        stream.begin(head)

    def _data(self, event: DataReceived) -> None:
        stream_id, data, octets = event.stream_id, event.data, event.flow_controlled_length
        assert stream_id is not None and octets is not None
        stream = self.streams.get(stream_id)
        if stream is None:
            self.grant(stream_id, octets)
        else:
            stream.received(data or b"", octets)

    def _trailers(self, event: TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is None:
            return
        block: Any = event.headers
        try:
            stream.send_trailers(request_trailers(block, self._limits))
        except Malformed as error:
            self.factory.counters.add("bad_requests", error.why)
            self._meter.reset()
            self.reset(stream, ErrorCodes.PROTOCOL_ERROR)

    def _window_opened(self, stream_id: int | None) -> None:
        for stream in list(self.streams.values()) if not stream_id else (self.streams.get(stream_id),):
            if stream is not None and stream.blocked:
                stream.blocked = False
                self.line_up(stream)

    # To the client

    def line_up(self, stream: Stream) -> None:
        """It has something to send."""
        if not stream.ready and not stream.closed and not stream.blocked:
            stream.ready = True
            self._line.append(stream)

    def pump(self) -> None:
        """Send what may go, one frame of each stream in turn, while the client takes it."""
        line = self._line
        octets = 0
        while line and not self._paused and not self._closing:
            stream = line.popleft()
            stream.ready = False
            before = stream.sent_octets
            if not stream.closed and stream.send_some():
                self.line_up(stream)
            octets += stream.sent_octets - before
            if octets > WRITE_OCTETS:
                octets = 0
                self._write()
        self._write()

    def pump_soon(self) -> None:
        """The same once all that the reactor has at hand is heard: what is answered together leaves together."""
        if not self._soon:
            self._soon = True
            self.factory.reactor.callLater(0, self._pump_now)

    def _pump_now(self) -> None:
        self._soon = False
        if not self._closing:
            self.pump()

    def send_block(self, stream_id: int, block: Fields, *, end: bool) -> None:
        """A header block."""
        self._h2.send_headers(stream_id, block, end_stream=end)

    def send_data(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Content within the windows."""
        self._h2.send_data(stream_id, data, end_stream=end)

    def window(self, stream_id: int) -> int:
        """Octets of content that may go in one frame now."""
        return min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)

    def grant(self, stream_id: int, octets: int) -> None:
        """Give so much window back to the client."""
        if self._closing or not octets:
            return
        try:
            self._h2.acknowledge_received_data(octets, stream_id)
        except StreamClosedError:
            pass
        except ProtocolError:
            return
        self._write()

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """End one stream."""
        self.forget(stream)
        stream.gone()
        if not self._closing:
            try:
                self._h2.reset_stream(stream.stream_id, code)
            except ProtocolError:
                return
            self._write()

    def forget(self, stream: Stream) -> None:
        """It has ended."""
        stream.closed = True
        self.streams.pop(stream.stream_id, None)
        if not self.streams and not self._closing:
            if self._going or self.factory.stopping:
                self._write()
                self._close()
            else:
                self._front.deadline = self.factory.seconds() + self._limits.keepalive_timeout_s

    def _write(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)

    # IPushProducer: the client's transport cannot take more, or can again.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.pump()

    def stopProducing(self) -> None:
        """The transport is going away; :meth:`client_lost` follows."""

    # The end

    def _end(self, why: str, code: ErrorCodes | int) -> None:
        """The connection is of no further use; say why."""
        self.factory.counters.add("h2_errors", why)
        self._closing = True
        self._h2.clear_outbound_data_buffer()
        self._transport.write(GoAwayFrame(0, last_stream_id=self._last_id, error_code=int(code)).serialize())
        self._drop_streams()
        self._close()

    def _close(self) -> None:
        self._closing = True
        self._transport.unregisterProducer()
        self._front.close_soon()

    def _drop_streams(self) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.gone()

    def stop(self) -> None:
        """The node stops: the streams in hand are finished, new ones refused (RFC 9113 §6.8)."""
        if self._closing or self._going:
            return
        self._going = True
        # h2 would send nothing more after a GOAWAY of its own.
        self._transport.write(GoAwayFrame(0, last_stream_id=self._last_id, error_code=0).serialize())
        if not self.streams:
            self._close()

    def late(self) -> None:
        """The sweep found that the connection's deadline has passed; while there are streams it always has."""
        now = self.factory.seconds()
        if self._closing:
            self._transport.abortConnection()
            return
        if self._block_since is not None and now - self._block_since > self._limits.header_timeout_s:
            self.factory.counters.add("timeouts", "request_head")
            self._end("header_timeout", ErrorCodes.ENHANCE_YOUR_CALM)
            return
        if self.streams:
            for stream in [stream for stream in self.streams.values() if stream.deadline <= now]:
                stream.late()
            self.pump()
        elif self._block_since is None:
            self.factory.counters.add("timeouts", "idle")
            self.stop()

    def client_lost(self) -> None:
        """The client is gone."""
        self._closing = True
        self._drop_streams()
