"""Clients' connections: HTTP/1.1 with keepalive, each request scheduled anew.

One object per connection does the work of a request as well, so that a request costs few objects: requests
of a connection are answered one after the other (RFC 9112 §9.3), and pipelined ones wait in a queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.errors import BadInput
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.http.framing import RequestParser
from lbarray.http.heads import forwarded_fields, interim_octets, own_answer, request_octets, response_octets
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress, Outcome, ServiceId
from lbarray.worker.backend import UNSENT_LIMIT, BackendConnection, BackendFactory
from lbarray.worker.contents import FilteredContent
from lbarray.worker.eager import make_eager

__all__ = ["ClientConnection", "ClientFactory"]

#: Methods whose repetition does what doing it once does (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset([b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])


#: Seconds for which a client's input is still read after our last answer.
LINGER_S = 2.0


class _Waiting:
    """A pipelined request that is not begun yet."""

    __slots__ = ("body", "ended", "head", "keep_alive")

    def __init__(self, head: RequestHead, keep_alive: bool) -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        self.ended = False


@implementer(IPushProducer)
class ClientConnection(Protocol):
    """One client's connection, plain or TLS.

    As a producer it stands for the back end whose response goes to the client.

    :ivar deadline: when the sweep may end it, in the reactor's seconds.
    """

    factory: ClientFactory
    transport: Any

    def __init__(self, factory: ClientFactory) -> None:
        self.factory = factory
        self.deadline = 0.0
        self._parser = RequestParser(self, factory.limits)
        self._waiting: deque[_Waiting] = deque()
        self._queue_paused = False
        self._lost = False
        self._closing = False
        self._lingers = False
        # Of the request in hand.
        self._request: RequestHead | None = None
        self._request_complete = False
        self._request_chunked = False
        self._keep_alive = True
        self._assignment: Any = None
        self._backend: BackendConnection | None = None
        self._head_octets = b""
        self._body_began = False
        self._held: list[bytes] = []  # content that came while the request waits for a back end
        # Of its response.
        self._response_begun = False
        self._status = 0
        self._content: FilteredContent | None = None
        self._client_full = False
        self._chunked = False
        self._out: list[bytes] = []

    # IProtocol

    def connectionMade(self) -> None:
        factory = self.factory
        factory.connections.add(self)
        factory.accepted += 1
        peer = self.transport.getPeer()
        self._address = ClientAddress(peer.host, peer.port, factory.tls)
        self._forwarded = forwarded_fields(peer.host, tls=factory.tls)
        self.deadline = factory.seconds() + factory.limits.header_timeout_s
        # Under TLS it is the TCP connection below that sends.
        make_eager(getattr(self.transport, "transport", self.transport) if factory.tls else self.transport)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        parser = self._parser
        try:
            parser.feed(data)
        except BadMessage as error:
            self._bad_request(error)
            return
        factory = self.factory
        if self._request is not None:
            self.deadline = factory.seconds() + factory.limits.response_timeout_s
        elif not parser.in_head:
            self.deadline = factory.seconds() + factory.limits.keepalive_timeout_s
        elif self.deadline > (limit := factory.seconds() + factory.limits.header_timeout_s):
            # The first octets of a head: from here its time runs, however slowly it trickles in.
            self.deadline = limit

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._closing = True
        self.factory.connections.discard(self)
        self._waiting.clear()
        self._give_up(Outcome.CLIENT_GONE)

    # RequestSink

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        if self._request is None and not self._waiting:
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
            self._send_body(data)

    def request_end(self) -> None:
        if self._waiting:
            self._waiting[-1].ended = True
        else:
            self._end_body()

    # One request

    def _begin(self, head: RequestHead, keep_alive: bool) -> None:
        factory = self.factory
        factory.requests_begun += 1
        self._request = head
        self._keep_alive = keep_alive and not factory.stopping
        self._request_complete = False
        self._response_begun = False
        self._body_began = False
        try:
            assignment = factory.requests.assign(factory.service_id, head, self._address)
        except BadInput as error:
            self._refused(error)
            return
        if assignment.answer is not None:
            self._answer(assignment.answer.status, assignment.answer.fields, assignment.answer.content)
            return
        self._assignment = assignment
        if assignment.waiting:
            assignment.wait(self._assigned)
        else:
            self._assigned(None)

    def _refused(self, error: BadInput) -> None:
        self.factory.counters.add("requests_refused", error.reason)
        self._answer(error.status or 503, error.answer_fields)

    def _assigned(self, error: BadInput | None) -> None:
        """There is a back end for the request in hand, or there will be none."""
        held, self._held = self._held, []
        if error is not None:
            self._assignment.finished(Outcome.CLIENT_GONE)
            self._assignment = None
            self._refused(error)
            return
        factory, assignment, head = self.factory, self._assignment, self._request
        assert head is not None
        for response_filter in factory.filters:
            response_filter.prepare(head)
        backend = assignment.backend
        self._head_octets, self._request_chunked = request_octets(
            head, self._forwarded, f"{backend.host}:{backend.port}" if not head.host else "", assignment.target
        )
        self._hand_over([self._head_octets])
        for data in held:
            self._send_body(data)
        if self._request_complete and head.has_body and self._backend is not None:
            self._end_body()
        if held and not self._queue_paused:
            self.transport.resumeProducing()

    def _hand_over(self, octets: list[bytes]) -> None:
        """Give the request to the assigned back end: over an idle connection, or over a new one."""
        assignment = self._assignment
        request = self._request
        assert request is not None
        connection = assignment.idle_connection()
        if connection is not None:
            self._backend = connection
            connection.carry(self, request.method, octets)
            if request.has_body:
                self.backend_connected()
            return
        factory = self.factory
        connection = self._backend = BackendConnection(factory.limits)
        connection.carry(self, request.method, octets)
        factory.reactor.connectTCP(
            assignment.backend.host,
            assignment.backend.port,
            BackendFactory(connection),
            timeout=factory.limits.connect_timeout_s,
        )

    def _send_body(self, data: bytes) -> None:
        if self._backend is None:
            # Answered already: the rest is read and dropped until we close. Not so while it waits in a queue.
            if self._assignment is not None and self._assignment.waiting:
                self._held.append(data)
                if sum(map(len, self._held)) > UNSENT_LIMIT:
                    self.transport.pauseProducing()
            return
        self._body_began = True
        self._backend.write(b"%x\r\n%b\r\n" % (len(data), data) if self._request_chunked else data)

    def _end_body(self) -> None:
        self._request_complete = True
        request, backend = self._request, self._backend
        if request is None or backend is None:
            if self._assignment is None:  # answered
                self._next()
            return
        if request.has_body:
            if self._request_chunked:
                backend.write(b"0\r\n\r\n")
            if backend.connected_once and not backend.lost:
                backend.transport.unregisterProducer()

    # What the back end's connection tells us

    def backend_connected(self) -> None:
        """From now on a slow back end pauses a client that sends content."""
        backend, request = self._backend, self._request
        if backend is not None and request is not None and request.has_body and not self._request_complete:
            backend.transport.registerProducer(self.transport, True)

    def backend_unreachable(self, unsent: list[bytes]) -> None:
        """No connection: nothing was sent, so any method may go to another back end."""
        self._backend = None
        assignment = self._assignment
        following = assignment.another()
        assignment.finished(Outcome.CONNECT_FAILED)
        self._assignment = following
        if following is None:
            self.factory.counters.add("backend_failures", "unreachable")
            self._answer(503)
            return
        self.factory.counters.add("retries", "unreachable")
        self._hand_over(unsent)

    def backend_broken(self, why: str) -> None:
        """The connection ended, or what came over it is no response."""
        backend, self._backend = self._backend, None
        assignment, self._assignment = self._assignment, None
        request = self._request
        if assignment is None or request is None:
            return
        if self._response_begun:
            # The client must see that its response is cut short, so no orderly end.
            self.factory.counters.add("backend_failures", "cut_short")
            assignment.finished(Outcome.BROKEN)
            self._abort()
            return
        # A kept connection may have been closed by the back end at the moment we used it: what is
        # idempotent and had no content is sent once more. Anything else might happen twice.
        again = (
            backend is not None
            and backend.reused
            and not backend.begun
            and not self._body_began
            and not request.has_body
            and request.method in IDEMPOTENT
        )
        if again and (following := assignment.another()) is not None:
            assignment.finished(Outcome.CLIENT_GONE)
            self.factory.counters.add("retries", "closed")
            self._assignment = following
            self._hand_over([self._head_octets])
            return
        self.factory.counters.add("backend_failures", why)
        assignment.finished(Outcome.BROKEN)
        self._answer(502)

    # ResponseSink

    def response_head(self, head: ResponseHead) -> None:
        request = self._request
        if request is None or self._closing:
            return
        status = head.status
        if status < 200:
            if request.version >= (1, 1):
                self._out.append(interim_octets(head))
            return
        self._response_begun = True
        self._status = status
        self._assignment.responded(head)
        if self.factory.filters:
            opened = [each.open(request, head, self._address) for each in self.factory.filters]
            body_filters = [body_filter for body_filter in opened if body_filter is not None]
            if body_filters:
                self._content = FilteredContent(body_filters, self)
        more: tuple[tuple[bytes, bytes], ...] = ()
        if self.factory.node_field:
            more = (self.factory.node_field, (b"X-Lbarray-Backend", self._assignment.backend.name.encode()))
        # Answered before the content was there: the rest of it has no place to go.
        keep_alive = self._keep_alive and self._request_complete
        octets, self._chunked, self._keep_alive = response_octets(request, head, more, keep_alive=keep_alive)
        self._out.append(octets)

    def response_body(self, data: bytes) -> None:
        if self._closing:
            return
        if self._content is not None:
            self._content.feed(data)
        elif data:
            self.content(data)

    # ContentSink

    def content(self, data: bytes) -> None:
        if self._chunked:
            self._out.extend((b"%x\r\n" % len(data), data, b"\r\n"))
        else:
            self._out.append(data)

    def response_end(self, reusable: bool) -> None:
        assignment, self._assignment = self._assignment, None
        backend, self._backend = self._backend, None
        if assignment is None or backend is None:
            return
        assignment.finished(Outcome.SERVER_ERROR if self._status >= 500 else Outcome.ANSWERED)
        if reusable and self._request_complete and not backend.lost:
            backend.stored(assignment)
            backend.transport.resumeProducing()  # a slow client may have paused it; an idle one must hear its end
            assignment.keep_connection(backend)
        else:
            if not self._request_complete and backend.connected_once and not backend.lost:
                backend.transport.unregisterProducer()
            backend.close()
        if self._content is not None:
            self._content.end()
        else:
            self.content_end()

    def content_end(self) -> None:
        if self._chunked:
            self._out.append(b"0\r\n\r\n")
        self.flush()
        self._done()

    def content_paused(self, paused: bool) -> None:
        if not paused:
            self.flush()
            if not self._client_full:
                self.resumeProducing()
        elif self._backend is not None and not self._backend.lost:
            self._backend.transport.pauseProducing()

    def flush(self) -> None:
        """Write what has gathered: one write for what came in one reading."""
        out = self._out
        if out and not self._lost:
            self.deadline = self.factory.seconds() + self.factory.limits.response_timeout_s
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
            self._out = []

    # After the response

    def _done(self) -> None:
        self._content = None
        self._response_begun = False
        if not self._keep_alive or self._lost:
            self._lingers = self._lingers or not self._request_complete
            self._request = None
            self._close()
            return
        if self._request_complete:
            self._next()

    def _next(self) -> None:
        """The request in hand is over, its content too: idle, or on to the next in the queue."""
        if self._closing:
            return
        self._request = None
        factory = self.factory
        self.deadline = factory.seconds() + factory.limits.keepalive_timeout_s
        if not self._waiting:
            if factory.stopping:
                self._close()
            return
        following = self._waiting.popleft()
        self._begin(following.head, following.keep_alive)
        if self._request is following.head:
            for data in following.body:
                self._send_body(data)
            if following.ended:
                self._end_body()
        if not self._waiting and self._queue_paused and not self._lost:
            self._queue_paused = False
            self.transport.resumeProducing()

    def _answer(self, status: int, fields: tuple[tuple[bytes, bytes], ...] = (), content: bytes | None = None) -> None:
        """Our own answer to the request in hand."""
        request = self._request
        self.factory.counters.add("answers", str(status))
        complete = request is not None and (self._request_complete or not request.has_body)
        self._keep_alive = self._keep_alive and complete and request is not None and request.version >= (1, 1)
        head_only = request is not None and request.method == b"HEAD"
        self._out.append(
            own_answer(status, head_only=head_only, keep_alive=self._keep_alive, fields=fields, content=content)
        )
        self.flush()
        self._done()

    def _bad_request(self, error: BadMessage) -> None:
        self.factory.counters.add("bad_requests", error.why)
        busy = self._request is not None
        self._waiting.clear()
        if busy and self._response_begun:
            self._abort()
            return
        self._give_up(Outcome.CLIENT_GONE)
        self._keep_alive = False
        self._lingers = True
        self._request = None
        self._answer(error.answer)

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
        if self._queue_paused:
            self.transport.resumeProducing()
        self.deadline = self.factory.seconds() + LINGER_S
        if self._lingers and not self.factory.tls:
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._closing = True
        if not self._lost:
            self.transport.abortConnection()

    def _give_up(self, outcome: Outcome) -> None:
        """Let go of the back end in the middle of a request."""
        assignment, self._assignment = self._assignment, None
        backend, self._backend = self._backend, None
        self._out = []
        content, self._content = self._content, None
        if content is not None:
            content.drop()
        if backend is not None:
            backend.close()
        if assignment is not None:
            assignment.finished(outcome)

    def timed_out(self) -> None:
        """The sweep found that ``deadline`` has passed."""
        counters = self.factory.counters
        if self._closing:
            self._abort()
        elif self._request is None:
            if self._parser.in_head:
                counters.add("timeouts", "request_head")
                self._keep_alive = False
                self._answer(408)
            else:
                counters.add("timeouts", "idle")
                self._close()
        elif self._response_begun:
            counters.add("timeouts", "response_body")
            self._give_up(Outcome.TIMED_OUT)
            self._abort()
        else:
            waits_for_client = not self._request_complete
            counters.add("timeouts", "request_body" if waits_for_client else "response")
            self._give_up(Outcome.CLIENT_GONE if waits_for_client else Outcome.TIMED_OUT)
            self._keep_alive = False
            self._answer(408 if waits_for_client else 504)

    def stop(self) -> None:
        """The node stops: idle connections end now, the others after the response in hand."""
        if self._request is None and not self._closing:
            self._close()

    # IPushProducer: the client's transport cannot take more, or can again.

    def pauseProducing(self) -> None:
        self._client_full = True
        if self._backend is not None and self._backend.connected_once and not self._backend.lost:
            self._backend.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._client_full = False
        if self._content is not None and self._content.waits:
            return  # a filter has work in hand: its end resumes
        if self._backend is not None and self._backend.connected_once and not self._backend.lost:
            self._backend.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going away; connectionLost follows."""


class ClientFactory(ServerFactory):
    """Makes the connections of one service.

    :param requests: an :class:`lbarray.interfaces.IRequestScheduler`.
    :param filters: :class:`lbarray.interfaces.IResponseFilter` providers, the first is nearest to the back end.
    :param node_name: tell in responses who made them; empty for not.
    """

    noisy = False

    def __init__(
        self,
        *,
        reactor: Any,
        service_id: ServiceId,
        tls: bool,
        requests: Any,
        filters: Sequence[Any],
        limits: Limits,
        counters: Counters,
        node_name: str = "",
    ) -> None:
        self.reactor = reactor
        self.seconds = reactor.seconds
        self.service_id = service_id
        self.tls = tls
        self.requests = requests
        self.filters = tuple(filters)
        self.limits = limits
        self.counters = counters
        self.node_field = (b"X-Lbarray-Node", node_name.encode()) if node_name else None
        self.connections: set[ClientConnection] = set()
        self.accepted = 0
        self.requests_begun = 0
        self.stopping = False

    def reconfigure(self, *, filters: Sequence[Any], limits: Limits, node_name: str) -> None:
        """Serve like this from the next request on; connections stay."""
        self.filters = tuple(filters)
        self.limits = limits
        self.node_field = (b"X-Lbarray-Node", node_name.encode()) if node_name else None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return ClientConnection(self)

    def sweep(self) -> None:
        """End what has been waiting for too long. Called about once a second; costs nothing per request."""
        now = self.seconds()
        late = [connection for connection in self.connections if connection.deadline <= now]
        for connection in late:
            connection.timed_out()
