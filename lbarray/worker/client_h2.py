"""Clients' connections of HTTP/2 (RFC 9113): many exchanges over one connection, each at its back end's pace.

:mod:`lbarray.http.h2_connection` keeps the protocol; here is what a proxy adds: octets are only taken from a back end
as fast as the client's windows let them go, and only taken from a client as fast as the back end reads.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from lbarray.http.events import Fields
from lbarray.http.h2_connection import ServerConnection
from lbarray.http.h2_frames import ErrorCode, Http2Error
from lbarray.http.h2_heads import Malformed, request_head, request_trailers
from lbarray.http.refusals import BadMessage
from lbarray.worker.h2_stream import Stream
from lbarray.worker.peer import Peer

__all__ = ["Http2Connection"]

#: Octets of content that are gathered before they are written.
WRITE_OCTETS = 65536


@implementer(IPushProducer)
class Http2Connection:
    """The streams of one client's connection. ``front`` is its Protocol, which passes on what it hears."""

    def __init__(self, front: Any, peer: Peer) -> None:
        self.factory = front.factory
        self.peer = peer
        self._front = front
        self._transport = front.transport
        self._paused = False
        self._soon = False
        self._line: deque[Stream] = deque()
        self._limits = self.factory.limits
        self._protocol: ServerConnection[Stream] = ServerConnection(self, self._limits)
        self.streams = self._protocol.streams
        self.window = self._protocol.window
        self.send_block = self._protocol.send_block
        self.send_data = self._protocol.send_data

    def start(self) -> None:
        """Say our settings; the client's octets, the preface first, come by :meth:`from_client`."""
        self._protocol.start()
        self._transport.registerProducer(self, True)
        self._front.deadline = self.factory.seconds() + self._limits.header_timeout_s
        self._write()

    # From the client

    def from_client(self, data: bytes) -> None:
        """Octets of the client."""
        protocol = self._protocol
        if protocol.closed:
            return
        now = self.factory.seconds()
        try:
            protocol.receive(data, now)
        except Http2Error as error:
            self._end(error.why, error.code)
            return
        self.pump()
        if not protocol.closed:
            self._set_deadline(now)

    def _set_deadline(self, now: float) -> None:
        if self.streams or self._protocol.since is not None:
            self._front.deadline = 0.0  # looked at in each sweep
        elif self._front.deadline <= 0.0 or self._protocol.last_id:
            self._front.deadline = now + self._limits.keepalive_timeout_s

    # Sink of the protocol

    def new_stream(self, stream_id: int) -> Stream:
        return Stream(self, stream_id)

    def request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        stream.request_complete = ended
        try:
            head = request_head(fields, self._limits, ended=ended, trusts_forwarded=self.peer.trusted)
        except Malformed as error:
            self._malformed(stream, error)
            return
        except BadMessage as error:
            self.factory.counters.add("bad_requests", error.why)
            stream.deadline = self.factory.seconds() + self._limits.response_timeout_s
            stream.answer(error.answer)
            return
        stream.expected = head.length
        stream.lines = self.peer.lines(head)
        stream.client_address = self.peer.address
        clients = self.factory.clients
        if clients.limits_requests:
            stream.asking = clients.find(self.peer.address.host) if head.forwarded else self._front.counted
        stream.begin(head)
        if ended and not stream.closed:
            stream.end_body()

    def _malformed(self, stream: Stream, error: Malformed) -> None:
        self.factory.counters.add("bad_requests", error.why)
        stream.gone()
        self._protocol.refuse(stream)
        self._last_gone()

    def request_data(self, stream: Stream, data: bytes, octets: int) -> None:
        stream.received(data, octets)

    def request_trailers(self, stream: Stream, fields: Fields) -> None:
        try:
            kept = request_trailers(fields, self._limits)
        except Malformed as error:
            self._malformed(stream, error)
            return
        if kept:
            stream.send_trailers(kept)

    def request_end(self, stream: Stream) -> None:
        stream.ended()

    def stream_reset(self, stream: Stream, code: int, by_client: bool) -> None:
        self.factory.counters.add("h2_resets", "client" if by_client else "mistake")
        stream.gone()
        self._last_gone()

    def window_opened(self, stream: Stream | None) -> None:
        for each in list(self.streams.values()) if stream is None else (stream,):
            if each.blocked:
                each.blocked = False
                self.line_up(each)

    def going_away(self) -> None:
        """What is in hand goes on; :meth:`forget` closes behind the last stream."""

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
        while line and not self._paused and not self._protocol.closed:
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
        if not self._protocol.closed:
            self.pump()

    def grant(self, stream: Stream, octets: int) -> None:
        """Give so much window back to the client."""
        self._protocol.grant(stream, octets)
        self._write()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End one stream."""
        stream.gone()
        if not self._protocol.closed:
            self._protocol.reset(stream, code)
            self._last_gone()
            self._write()

    def forget(self, stream: Stream) -> None:
        """It has ended."""
        stream.closed = True
        self._protocol.finish(stream)
        if not self.streams:
            self._last_gone()

    def _last_gone(self) -> None:
        if self.streams or self._protocol.closed:
            return
        if self._protocol.going or self.factory.stopping:
            self._write()
            self._close()
        else:
            self._front.deadline = self.factory.seconds() + self._limits.keepalive_timeout_s

    def _write(self) -> None:
        data = self._protocol.take()
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

    def _end(self, why: str, code: ErrorCode) -> None:
        """The connection is of no further use; say why."""
        self.factory.counters.add("h2_errors", why)
        self._protocol.closed = True
        self._protocol.goaway(code)
        self._write()
        self._drop_streams()
        self._close()

    def _close(self) -> None:
        self._protocol.closed = True
        self._transport.unregisterProducer()
        self._front.close_soon()

    def _drop_streams(self) -> None:
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.gone()

    def stop(self) -> None:
        """The node stops: the streams in hand are finished, new ones refused (RFC 9113 §6.8)."""
        if self._protocol.closed or self._protocol.going:
            return
        self._protocol.goaway(ErrorCode.NO_ERROR)
        self._write()
        if not self.streams:
            self._close()

    def late(self) -> None:
        """The sweep found that the connection's deadline has passed; while there are streams it always has."""
        now = self.factory.seconds()
        since = self._protocol.since
        if self._protocol.closed:
            self._transport.abortConnection()
            return
        if since is not None and now - since > self._limits.header_timeout_s:
            self.factory.counters.add("timeouts", "request_head")
            self._end("header_timeout", ErrorCode.ENHANCE_YOUR_CALM)
            return
        if self.streams:
            for stream in [stream for stream in self.streams.values() if stream.deadline <= now]:
                stream.late()
            self.pump()
        elif since is None:
            self.factory.counters.add("timeouts", "idle")
            self.stop()

    def client_lost(self) -> None:
        """The client is gone."""
        self._protocol.closed = True
        self._drop_streams()
