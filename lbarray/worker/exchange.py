"""One request and its response at a back end, whatever version of HTTP the client speaks.

The client's side of it is a subclass: a connection of HTTP/1.1 is its own exchange, for one request after the other;
a stream of HTTP/2 is one that is used once.
"""

from __future__ import annotations

from lbarray.errors import BadInput
from lbarray.http.events import Fields, RequestHead
from lbarray.http.heads import request_octets, trailer_octets
from lbarray.http.tracing import ensure_trace, follow_trace
from lbarray.values import BackendAddress, Outcome
from lbarray.worker.backend import UNSENT_LIMIT, BackendFactory
from lbarray.worker.mirror import Mirror
from lbarray.worker.responding import Responding

__all__ = ["IDEMPOTENT", "Exchange"]

#: Methods whose repetition does what doing it once does (RFC 9110 §9.2.2).
IDEMPOTENT = frozenset([b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PROPFIND", b"QUERY", b"SEARCH", b"REPORT"])


class Exchange(Responding):
    """The machine of one request: assigned, sent, answered; repeated where that is safe.

    A subclass gives ``factory``, ``client_address`` and ``upload``, calls :meth:`begin`, :meth:`send_body`,
    :meth:`send_trailers`, :meth:`end_body` and :meth:`give_up`, and is told what to answer by the ``respond``
    and ``content`` methods.
    """

    # What the client's side does

    def begin(self, head: RequestHead, complete: bool = False) -> None:
        """A request, with its content to follow; or ``complete``, without any: no :meth:`end_body` follows then."""
        factory = self.factory
        factory.requests_begun += 1
        self.request = head
        self.request_complete = complete
        self.response_begun = False
        self._body_began = False
        self._stale_once = False
        self._max_body = None
        self._body_octets = 0
        self._response_timeout_s = factory.limits.response_timeout_s
        self.sent_octets = 0
        self._backend_name = self._route = ""
        self._began_s = now = factory.seconds()
        if factory.tracing is not None:
            self._trace, self._recorded = follow_trace(head, factory.tracing.samples)
            self._asked, self._attempts = None, 0
        elif factory.forwarding.traces:
            self._trace = ensure_trace(head)
        self.deadline = now + (self._response_timeout_s if complete else factory.limits.body_timeout_s)
        self._window_octets = 0
        if self.asking is not None and (wait_s := factory.clients.wait_s(self.asking, now)):
            factory.counters.add("requests_refused", "rate")
            self.answer(429, ((b"Retry-After", b"%d" % wait_s),))
            return
        try:
            assignment = factory.requests.assign(factory.service_id, head, self.client_address)
        except BadInput as error:
            self._refused(error)
            return
        self._route = assignment.handling.route
        if assignment.answer is not None:
            answer = assignment.answer
            self.answer(answer.status, answer.fields, answer.content)
            return
        self._assignment = assignment
        if assignment.waiting:
            self._held = []
            assignment.wait(self._assigned)
        else:
            self._assigned(None)

    def send_body(self, data: bytes) -> None:
        """Some of the request's content."""
        self._body_octets += len(data)
        if self._max_body is not None and self._body_octets > self._max_body:
            self._too_large()
        elif self._held is None:
            self._pass_on(data)
        else:
            self._held.append(data)
            if self._body_octets > UNSENT_LIMIT and not self.upload.paused:
                self.upload.pauseProducing()

    def _pass_on(self, data: bytes) -> None:
        backend = self._backend
        if backend is None:  # answered already: the rest is read and dropped
            return
        self._body_began = True
        octets = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked_request else data
        backend.write(octets)
        if self._mirrors is not None:
            for mirror in self._mirrors:
                mirror.write(octets)

    def send_trailers(self, fields: Fields) -> None:
        """Fields behind the content; :meth:`end_body` follows."""
        if self._chunked_request and self._backend is not None and self._held is None:
            self._chunked_request = False
            self._end_with(trailer_octets(fields))

    def end_body(self) -> None:
        """The request is complete."""
        self.request_complete = True
        request, backend = self.request, self._backend
        if request is None:
            return
        if self._held is not None:
            self.deadline = self.factory.seconds() + self._response_timeout_s
            return
        if backend is None:
            if self._assignment is None:  # answered
                self.answered_and_complete()
            return
        if request.has_body:
            if self._chunked_request:
                self._end_with(b"0\r\n\r\n")
            backend.end_upload()
        self.deadline = self.factory.seconds() + self._response_timeout_s

    def _end_with(self, octets: bytes) -> None:
        if self._backend is not None:
            self._backend.write(octets)
        for mirror in self._mirrors or ():
            mirror.write(octets)

    def give_up(self, outcome: Outcome) -> None:
        """Let go of the back end in the middle of a request."""
        assignment, self._assignment = self._assignment, None
        backend, self._backend = self._backend, None
        content, self._content = self._content, None
        self._held = None
        self._drop_mirrors()
        if content is not None:
            content.drop()
        if backend is not None:
            backend.close()
        if assignment is not None:
            assignment.finished(outcome)

    # Being assigned, and being sent

    def _refused(self, error: BadInput) -> None:
        self.factory.counters.add("requests_refused", error.reason)
        self._route = self._route or error.route
        self.answer(error.status or 503, error.answer_fields)

    def _too_large(self) -> None:
        if self._assignment is None and self._backend is None:
            return
        self.factory.counters.add("requests_refused", "body_too_large")
        if self.response_begun:
            self.give_up(Outcome.CLIENT_GONE)
            self.respond_cut()
            return
        self.give_up(Outcome.CLIENT_GONE)
        self.answer(413)

    def _assigned(self, error: BadInput | None) -> None:
        """There is a back end for the request in hand, or there will be none."""
        held, self._held = self._held, None
        assignment, head = self._assignment, self.request
        assert head is not None
        if error is not None:
            self._assignment = None
            assignment.finished(Outcome.CLIENT_GONE)
            self._refused(error)
            return
        factory = self.factory
        handling = assignment.handling
        if handling.response_timeout_s is not None:
            self._response_timeout_s = handling.response_timeout_s
            if self.request_complete:
                self.deadline = factory.seconds() + self._response_timeout_s
        for response_filter in factory.filters:
            response_filter.prepare(head)
        self._head_octets, self._chunked_request = request_octets(
            head, self.lines, "" if head.host else _authority(assignment.backend), assignment.target
        )
        self._max_body = handling.max_body
        if self._max_body is not None and self._body_octets > self._max_body:
            self._too_large()
            return
        self._hand_over([self._head_octets])
        if assignment.mirrors:
            self._mirrors = [Mirror(factory, mirror, head.method, self._head_octets) for mirror in assignment.mirrors]
        if held is not None:
            self._send_held(held)

    def _send_held(self, held: list[bytes]) -> None:
        """The content that came while the request waited."""
        if self.upload.paused:
            self.upload.resumeProducing()
        for data in held:
            self._pass_on(data)
        if self.request_complete:
            self.end_body()

    def _hand_over(self, octets: list[bytes], *, fresh: bool = False) -> None:
        """Give the request to the assigned back end: over an idle connection, or over a new one."""
        assignment = self._assignment
        request = self.request
        assert request is not None
        repeatable = not request.has_body and request.method in IDEMPOTENT and not request.upgrade
        upgrade = bool(request.upgrade)
        self._backend_name = assignment.backend.name
        if self._recorded is not None:
            self._asked = assignment.backend
            self._attempts += 1
            if self._attempts == 1:
                self._asked_s = self.factory.seconds()
        connection = None if fresh else assignment.idle_connection()
        while connection is not None:
            # What cannot be repeated needs a connection that the back end is not about to close.
            if repeatable or connection.trusted(self.factory.seconds()):
                self._backend = connection
                connection.carry(self, request.method, octets, upgrade)
                if request.has_body:
                    self.backend_connected()
                return
            connection.close()
            connection = assignment.idle_connection()
        factory = self.factory
        connection = self._backend = factory.backend_connection(assignment.backend)
        connection.carry(self, request.method, octets, upgrade)
        connection.attempt = factory.connector.connect(
            assignment.backend,
            BackendFactory(connection),
            factory.limits.connect_timeout_s,
            self.client_address,
            factory.service_id,
        )

    # What the back end's connection tells us

    def backend_connected(self) -> None:
        """From now on a slow back end pauses a client that sends content."""
        backend, request = self._backend, self.request
        if backend is not None and request is not None and request.has_body and not self.request_complete:
            backend.begin_upload(self.upload)

    def backend_unreachable(self, unsent: list[bytes], timed_out: bool) -> None:
        """No connection: nothing was sent, so any method may go to another back end."""
        self._backend = None
        assignment = self._assignment
        following = assignment.another(unsent=True)
        assignment.finished(Outcome.CONNECT_FAILED)
        self._assignment = following
        if following is None:
            self.factory.counters.add("backend_failures", "connect_timeout" if timed_out else "unreachable")
            self.answer(504 if timed_out else 503)
            return
        self.factory.counters.add("retries", "unreachable")
        if self.upload.paused:
            self.upload.resumeProducing()  # the next connection pauses it anew where it must
        self._hand_over(unsent)

    def backend_broken(self, why: str) -> None:
        """The connection ended, or what came over it is no response."""
        backend, self._backend = self._backend, None
        assignment, self._assignment = self._assignment, None
        request = self.request
        if assignment is None or request is None:
            return
        if self.response_begun:
            # The client must see that its response is cut short, so no orderly end.
            self.factory.counters.add("backend_failures", "cut_short")
            assignment.finished(Outcome.BROKEN)
            self._drop_mirrors()
            self.respond_cut()
            return
        # What is idempotent and had no content may be sent once more; anything else might happen twice.
        repeatable = (
            backend is not None
            and not backend.begun
            and not self._body_began
            and not request.has_body
            and request.method in IDEMPOTENT
            and not request.upgrade
        )
        if repeatable and backend is not None and backend.reused and not self._stale_once:
            # A kept connection that the back end closed at the moment we used it says nothing about the back
            # end: over a new connection, it is the first attempt.
            self._stale_once = True
            self.factory.counters.add("retries", "stale")
            self._assignment = assignment
            self._hand_over([self._head_octets], fresh=True)
            return
        if repeatable and assignment.handling.retry_broken and (following := assignment.another()) is not None:
            assignment.finished(Outcome.BROKEN)
            self.factory.counters.add("retries", "broken")
            self._assignment = following
            self._hand_over([self._head_octets])
            return
        self.factory.counters.add("backend_failures", why)
        assignment.finished(Outcome.BROKEN)
        self.answer(502)

    def _retry_status(self) -> bool:
        """Leave a response that the route does not want its clients to see; true when somebody else is asked."""
        request, assignment, backend = self.request, self._assignment, self._backend
        assert request is not None
        if request.has_body or request.upgrade or request.method not in IDEMPOTENT or backend is None:
            return False
        following = assignment.another()
        if following is None:
            return False
        self._backend = None
        backend.close()
        assignment.finished(Outcome.SERVER_ERROR)
        self.factory.counters.add("retries", "status")
        self._assignment = following
        self._hand_over([self._head_octets])
        return True

    # Time

    def exchange_late(self) -> None:
        """Nobody has moved for too long: say to whom it was, and end the request."""
        counters = self.factory.counters
        if self.response_begun:
            counters.add("timeouts", "response_body")
            self.give_up(Outcome.TIMED_OUT)
            self.respond_cut()
            return
        if not self.request_complete and not self.upload.paused:
            limits = self.factory.limits
            if self._body_octets - self._window_octets >= limits.body_rate * limits.body_timeout_s:
                self._window_octets = self._body_octets
                self.deadline = self.factory.seconds() + limits.body_timeout_s
                return
            counters.add("timeouts", "request_body")
            self.give_up(Outcome.CLIENT_GONE)
            self.answer(408)
            return
        if self._held is not None:
            counters.add("timeouts", "queue")
            self.give_up(Outcome.CLIENT_GONE)  # no back end is to blame
            self.answer(503)
            return
        counters.add("timeouts", "response")
        self.give_up(Outcome.TIMED_OUT)
        self.answer(504)


def _authority(backend: BackendAddress) -> str:
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{host}:{backend.port}"
