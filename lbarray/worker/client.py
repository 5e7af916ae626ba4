"""Clients' connections of HTTP/1.1, with keepalive, each request scheduled anew.

One object per connection is its exchange as well, so that a request costs few objects: requests of a connection are
answered one after the other (RFC 9112 §9.3), and pipelined ones wait in a queue.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.h2_frames import PREFACE
from lbarray.http.heads import interim_octets, own_answer, response_octets, switch_octets, trailer_octets
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import RequestParser
from lbarray.values import Outcome
from lbarray.worker.backend import BackendConnection
from lbarray.worker.client_h2 import Http2Connection
from lbarray.worker.clients import Client
from lbarray.worker.exchange import Exchange
from lbarray.worker.peer import Peer
from lbarray.worker.tunnel import Tunnel

__all__ = ["ClientConnection"]

#: Seconds for which a client's input is still read after our last answer.
LINGER_S = 2.0
#: Octets of content that are cheaper to copy behind their head than to hand over beside it.
JOIN_BELOW = 8192
#: Seconds that a connection without a request has left when the node stops.
FRESH_S = 1.0


class _Waiting:
    """A pipelined request that is not begun yet."""

    __slots__ = ("body", "ended", "head", "keep_alive", "trailers")

    def __init__(self, head: RequestHead, keep_alive: bool) -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.trailers: Fields = []
        self.ended = False


class _Upload:
    """The client as the sender of content: what a slow back end pauses.

    :ivar paused: the back end is slower than the client.
    """

    __slots__ = ("_connection", "paused")

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True
        self._connection.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.paused = False
        self._connection.resume_reading()

    def stopProducing(self) -> None:
        """The back end's transport is going away; the exchange hears that."""


@implementer(IPushProducer)
class ClientConnection(Exchange, Protocol):
    """One client's connection, plain or TLS.

    As a producer it stands for the back end whose response goes to the client.

    :param factory: the :class:`~lbarray.worker.factory.ClientFactory` of its service.
    :param client: whose connections and requests are counted; ``None`` where nothing is.
    """

    transport: Any

    def __init__(self, factory: Any, client: Client | None = None) -> None:
        self.factory = factory
        self.counted = client
        self.peer: Peer | None = None
        self.upload = _Upload(self)
        self._waiting: deque[_Waiting] = deque()
        self._refusal: BadMessage | None = None
        self._queue_paused = False
        self._advancing = False
        self._lost = False
        self._closing = False
        self._lingers = False
        self._has_asked = False
        self._keep_alive = True
        self._chunked = False
        self._out: list[bytes] = []
        self._beginning: bytes | None = None
        self._tunnel: Tunnel | None = None
        self._h2: Http2Connection | None = None
        # What speaks another protocol over this connection: one of the two above.
        self._other: Tunnel | Http2Connection | None = None

    # IProtocol

    def connectionMade(self) -> None:
        factory = self.factory
        peer = self.transport.getPeer()
        self.peer = Peer(
            factory.forwarding,
            peer.host,
            peer.port,
            tls=factory.tls,
            identity=getattr(self.transport, "client_fields", b""),
            session=getattr(self.transport, "tls_session", None),
        )
        self.client_address = self.peer.address
        self._parser = RequestParser(
            self, factory.limits, upgrades=factory.upgrades, trusts_forwarded=self.peer.trusted
        )
        factory.connections.add(self)
        factory.accepted += 1
        self.deadline = factory.seconds() + factory.limits.header_timeout_s
        if getattr(self.transport, "negotiatedProtocol", None) == b"h2":
            self._begin_h2(b"")
            return
        if factory.h2c:
            self._beginning = b""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._other is not None:
            self._other.from_client(data)
            return
        if self._beginning is not None:
            data = self._beginning + data
            if PREFACE.startswith(data[: len(PREFACE)]):
                self._beginning = data
                if len(data) >= len(PREFACE):
                    self.transport.unregisterProducer()
                    self._begin_h2(data)
                return
            self._beginning = None
        try:
            self._parser.feed(data)
        except BadMessage as error:
            self._bad_request(error)
            return
        if self.request is None and self._parser.in_head:
            # The first octets of a head: from here its time runs, however slowly it trickles in.
            self.deadline = min(self.deadline, self.factory.seconds() + self.factory.limits.header_timeout_s)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._closing = True
        factory = self.factory
        factory.connections.discard(self)
        factory.clients.left(self.counted)
        self._waiting.clear()
        if self._tunnel is not None:
            self._tunnel.close()
        elif self._h2 is not None:
            self._h2.client_lost()
        elif self.request is not None:
            self.log_access(self.status if self.response_begun else 499)
        self.give_up(Outcome.CLIENT_GONE)

    # RequestSink

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        if self.request is None and not self._waiting:
            self._begin(head, keep_alive)
            return
        self._waiting.append(_Waiting(head, keep_alive))
        if not self._queue_paused:
            # What one reading brought is kept; more is not read before the queue is empty.
            self._queue_paused = True
            self.transport.pauseProducing()

    def request_body(self, data: bytes) -> None:
        if self._waiting:
            self._waiting[-1].body.append(data)
        else:
            self.send_body(data)

    def request_trailers(self, fields: Fields) -> None:
        if self._waiting:
            self._waiting[-1].trailers = fields
        else:
            self.send_trailers(fields)

    def request_end(self) -> None:
        if self._waiting:
            self._waiting[-1].ended = True
        else:
            self.end_body()

    def request_whole(self, head: RequestHead) -> None:
        if self.request is None and not self._waiting:
            self._begin(head, True, True)
        else:
            self.request_head(head, True)
            self.request_end()

    # One request

    def _begin(self, head: RequestHead, keep_alive: bool, complete: bool = False) -> None:
        peer = self.peer
        assert peer is not None
        self._keep_alive = keep_alive and not self.factory.stopping
        self._has_asked = True
        self.lines = peer.lines(head)
        self.client_address = peer.address
        if self.factory.clients.limits_requests:
            self.asking = self.factory.clients.find(peer.address.host) if head.forwarded else self.counted
        self.begin(head, complete)

    def answered_and_complete(self) -> None:
        self._next()

    # The response

    def respond_interim(self, head: ResponseHead) -> None:
        request = self.request
        if request is not None and request.version >= (1, 1):
            self._out.append(interim_octets(head))

    def respond(self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], has_length: bool) -> None:
        request = self.request
        assert request is not None
        # Answered before the content was there: the rest of it has no place to go.
        keep_alive = self._keep_alive and self.request_complete
        octets, self._chunked, self._keep_alive = response_octets(
            request, head, more, has_length=has_length, keep_alive=keep_alive
        )
        self._out.append(octets)

    def respond_whole(
        self, head: ResponseHead, more: tuple[tuple[bytes, bytes], ...], content: bytes, now: float
    ) -> None:
        request = self.request
        assert request is not None
        octets, _, self._keep_alive = response_octets(request, head, more, has_length=True, keep_alive=self._keep_alive)
        self.sent_octets = len(content)
        out = self._out
        if out or len(content) > JOIN_BELOW:
            out += (octets, content)
            self.flush()
        elif not self._lost:
            self.deadline = now + self._response_timeout_s
            self.transport.write(octets + content)
        self.log_access(head.status, now)
        self._done()

    def content(self, data: bytes) -> None:
        self.sent_octets += len(data)
        if self._chunked:
            self._out.extend((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self._out.append(data)

    def content_trailers(self, fields: Fields) -> None:
        if self._chunked:
            self._chunked = False
            self._out.append(trailer_octets(fields))

    def content_end(self) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self.log_access(self.status)
        self._done()

    def flush(self) -> None:
        """Write what has gathered: one write for what came in one reading."""
        out = self._out
        if out and not self._lost:
            self.deadline = self.factory.seconds() + self._response_timeout_s
            if len(out) == 1:
                self.transport.write(out[0])
            else:
                self.transport.writeSequence(out)
            self._out = []

    def respond_cut(self) -> None:
        self._out = []
        self.log_access(self.status)
        self.request = None
        self._abort()

    # After the response

    def _done(self) -> None:
        self._content = None
        self.response_begun = False
        if self.upload.paused:
            self.upload.resumeProducing()
        if not self._keep_alive or self._lost:
            self._lingers = self._lingers or not self.request_complete
            self.request = None
            self._close()
            return
        if self.request_complete:
            self._next()

    def _next(self) -> None:
        """The request in hand is over, its content too: idle, or on to the next in the queue."""
        if self._closing:
            return
        upgrade = self.request is not None and self.request.upgrade
        self.request = None
        factory = self.factory
        self.deadline = factory.seconds() + factory.limits.keepalive_timeout_s
        if upgrade:
            self._go_on()
            if self.request is not None or self._closing:
                return
        if self._waiting:
            if not self._advancing:
                self._advance()
        elif self._refusal is not None:
            self._refuse(self._refusal)
        elif factory.stopping:
            self._close()
        if not self._waiting and self._queue_paused and not self._lost and self._refusal is None:
            self._queue_paused = False
            self.resume_reading()

    def _advance(self) -> None:
        """The requests in the queue, as long as each is answered at once; in a loop, for they may be many."""
        self._advancing = True
        while self._waiting and self.request is None and not self._closing:
            following = self._waiting.popleft()
            if following.ended and not following.body and not following.trailers and not following.head.has_body:
                self._begin(following.head, following.keep_alive, True)
                continue
            self._begin(following.head, following.keep_alive)
            if self.request is following.head:
                for data in following.body:
                    self.send_body(data)
                if following.trailers:
                    self.send_trailers(following.trailers)
                if following.ended:
                    self.end_body()
        self._advancing = False

    def _go_on(self) -> None:
        """The protocol stays: what came behind the request that would have switched it is the next request."""
        try:
            self._parser.go_on()
        except BadMessage as error:
            self._bad_request(error)

    def resume_reading(self) -> None:
        """Read again, unless there is another reason not to."""
        if not self._queue_paused and not self.upload.paused and not self._lost:
            self.transport.resumeProducing()

    def answer(self, status: int, fields: tuple[tuple[bytes, bytes], ...] = (), content: bytes | None = None) -> None:
        request = self.request
        self.factory.counters.add("answers", str(status))
        complete = request is not None and (self.request_complete or not request.has_body)
        self._keep_alive = self._keep_alive and complete and request is not None and request.version >= (1, 1)
        head_only = request is not None and request.method == b"HEAD"
        self._out.append(
            own_answer(status, head_only=head_only, keep_alive=self._keep_alive, fields=fields, content=content)
        )
        self.flush()
        self.log_access(status)
        self._done()

    # Refusing

    def _bad_request(self, error: BadMessage) -> None:
        self.factory.counters.add("bad_requests", error.why)
        if self._waiting and not self._waiting[-1].ended:
            self._waiting.pop()
        if self._waiting or (self.request is not None and self.request_complete):
            # Those before it were whole: they are answered first, and then we say what is wrong with this one.
            self._refusal = error
            if not self._queue_paused:
                self._queue_paused = True
                self.transport.pauseProducing()
            return
        if self.response_begun:
            self.give_up(Outcome.CLIENT_GONE)
            self.respond_cut()
            return
        self.give_up(Outcome.CLIENT_GONE)
        self._refuse(error)

    def _refuse(self, error: BadMessage) -> None:
        self._refusal = None
        self._out = []
        self._keep_alive = False
        self._lingers = True
        self.request = None
        self.answer(error.answer)

    # The end

    def _close(self) -> None:
        """End the connection once everything is written.

        A client that is still sending must be able to read our last answer: closing a socket with unread input
        resets it, and the answer is lost. So only our side is closed, and what comes is read and dropped
        until the client closes its own, or its time is up (RFC 9112 §9.6).
        """
        if self._closing:
            return
        self._closing = True
        self.transport.unregisterProducer()
        if self._queue_paused or self.upload.paused:
            self._queue_paused = self.upload.paused = False
            self.transport.resumeProducing()
        self.deadline = self.factory.seconds() + LINGER_S
        if self._lingers:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._closing = True
        if not self._lost:
            self.transport.abortConnection()

    def timed_out(self) -> None:
        """The sweep found that ``deadline`` has passed."""
        counters = self.factory.counters
        if self._closing:
            self._abort()
        elif self._tunnel is not None:
            counters.add("timeouts", "tunnel")
            self._tunnel.close()
        elif self._h2 is not None:
            self._h2.late()
        elif self.request is not None:
            self.exchange_late()
        elif self._parser.in_head:
            counters.add("timeouts", "request_head")
            self._keep_alive = False
            self.answer(408)
        else:
            counters.add("timeouts", "idle")
            self._close()

    @property
    def idle(self) -> bool:
        """No request is in hand, none has begun."""
        if self._h2 is not None:
            return not self._h2.streams
        return self.request is None and not self._closing and self._tunnel is None and not self._parser.in_head

    def stop(self) -> None:
        """The node stops: idle connections end now, the others after the response in hand. One that has just come is
        given a moment to ask, for its request is on the way."""
        if self._h2 is not None:
            self._h2.stop()
        elif self.idle:
            if self._has_asked:
                self._close()
            else:
                self.deadline = min(self.deadline, self.factory.seconds() + FRESH_S)

    # IPushProducer: the client's transport cannot take more, or can again.

    def pauseProducing(self) -> None:
        self.pause_backend()

    def resumeProducing(self) -> None:
        self.resume_backend()

    def stopProducing(self) -> None:
        """The transport is going away; connectionLost follows."""

    # Another protocol

    def respond_switch(self, head: ResponseHead, backend: BackendConnection, assignment: Any, data: bytes) -> None:
        factory = self.factory
        self.log_access(head.status)
        factory.counters.add("tunnels")
        factory.tunnels += 1
        self.request = None
        self.transport.unregisterProducer()
        self.transport.write(switch_octets(head))
        self.deadline = factory.seconds() + factory.limits.tunnel_timeout_s

        def ended() -> None:
            factory.tunnels -= 1
            self._closing = True
            self.deadline = factory.seconds() + LINGER_S
            assignment.finished(Outcome.ANSWERED)

        def moving() -> None:
            self.deadline = factory.seconds() + factory.limits.tunnel_timeout_s

        self._other = self._tunnel = Tunnel(self.transport, backend.transport, moving, ended)
        backend.become(self._tunnel.backend_side)
        alsoProvides(self, IHalfCloseableProtocol)
        self._tunnel.start(self._parser.switch(), data)

    def _begin_h2(self, data: bytes) -> None:
        assert self.peer is not None
        self._beginning = None
        self._other = self._h2 = Http2Connection(self, self.peer)
        self._h2.start()
        if data:
            self._h2.from_client(data)

    def close_soon(self) -> None:
        """What speaks another protocol over this connection has said its last."""
        self._closing = True
        self.deadline = self.factory.seconds() + LINGER_S
        self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        """The client sends no more."""
        if self._tunnel is not None:
            self._tunnel.client_ended()

    def writeConnectionLost(self) -> None:
        """Our side is closed."""
