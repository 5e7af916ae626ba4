"""The response of a request: from its back end through the filters to the client, at the client's pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.telemetry.access_log import Record
from lbarray.values import Outcome
from lbarray.worker.contents import FilteredContent
from lbarray.worker.exchange_state import ExchangeState
from lbarray.worker.spans import spans_of

__all__ = ["Responding"]

_ANSWERED, _SERVER_ERROR = Outcome.ANSWERED, Outcome.SERVER_ERROR
#: Makes a record of all its parts in their order, without the call of Python that its class is.
_new: Callable[[type[Record], tuple[Any, ...]], Record] = tuple.__new__


class Responding(ExchangeState):
    """An exchange as its back end's connection sees it (``ResponseSink``), and its filters (``ContentSink``)."""

    # ResponseSink

    def response_head(self, head: ResponseHead) -> None:
        request, assignment = self.request, self._assignment
        if request is None or assignment is None:
            return
        status = head.status
        if status < 200:
            self.respond_interim(head)
            return
        retried = assignment.handling.retry_statuses
        if retried and status in retried and self._retry_status():
            return
        self.response_begun = True
        self.status = status
        assignment.responded(head)
        factory = self.factory
        has_length = head.has_length
        self._content = None
        if factory.filters:
            opened = [each.open(request, head, self.client_address) for each in factory.filters]
            body_filters = [body_filter for body_filter in opened if body_filter is not None]
            has_length = head.get(b"content-length") is not None
            if body_filters:
                self._content = FilteredContent(body_filters, self)
        self.respond(head, self._marks(assignment), has_length)

    def response_whole(self, head: ResponseHead, content: bytes) -> None:
        """Nearly all small responses: the same as the four together, with one look at the clock."""
        request, assignment, backend, factory = self.request, self._assignment, self._backend, self.factory
        status = head.status
        if (
            request is None
            or assignment is None
            or backend is None
            or not self.request_complete
            or self._mirrors is not None
            or factory.filters
            or status in assignment.handling.retry_statuses
        ):
            self.response_head(head)
            if self._backend is backend:  # and not another one, that is asked now
                self.response_body(content)
                self.response_end(True)
            return
        self.status = status
        assignment.responded(head)
        self._assignment = self._backend = None
        now = self._give_back(assignment, backend, True)
        self.respond_whole(head, self._marks(assignment), content, now)

    def response_body(self, data: bytes) -> None:
        if self._content is not None:
            self._content.feed(data)
        elif data:
            self.content(data)

    def response_trailers(self, fields: Fields) -> None:
        if self._content is None:  # a filter changed what they speak of
            self.content_trailers(fields)

    def response_end(self, reusable: bool) -> None:
        assignment, self._assignment = self._assignment, None
        backend, self._backend = self._backend, None
        if assignment is None or backend is None:
            return
        self._give_back(assignment, backend, reusable)
        if self._mirrors is not None:
            if not self.request_complete:
                self._drop_mirrors()
            self._mirrors = None
        if self._content is not None:
            self._content.end()
        else:
            self.content_end()

    def _give_back(self, assignment: Any, backend: Any, reusable: bool) -> float:
        """The back end has answered: its connection is kept, or closed; the time."""
        assignment.finished(_ANSWERED if self.status < 500 else _SERVER_ERROR)
        now: float = self.factory.seconds()
        if reusable and self.request_complete and not backend.lost:
            backend.stored(assignment, now)
            assignment.keep_connection(backend)
        else:
            backend.close()
        return now

    def _marks(self, assignment: Any) -> tuple[tuple[bytes, bytes], ...]:
        """Who answered, where the configuration wants clients to see it (``worker.expose``)."""
        field = self.factory.node_field
        return (field, (b"X-Lbarray-Backend", assignment.backend.name.encode())) if field else ()

    # ContentSink: content_paused, and below content and content_end

    def content_paused(self, paused: bool) -> None:
        """A filter has work in hand, or is done with it."""
        if not paused:
            self.flush()
            if not self._client_full:
                self.resume_backend()
        elif self._backend is not None:
            self._backend.pause()

    def pause_backend(self) -> None:
        """The client cannot take more."""
        self._client_full = True
        if self._content is not None:
            self._content.hold(True)
        if self._backend is not None:
            self._backend.pause()

    def resume_backend(self) -> None:
        """The client can take more."""
        self._client_full = False
        if self._content is not None:
            self._content.hold(False)
            if self._content is not None and self._content.waits:
                return  # a filter has work in hand: its end resumes
        if self._backend is not None:
            self._backend.resume()

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        backend, self._backend = self._backend, None
        assignment, self._assignment = self._assignment, None
        assert backend is not None
        self.respond_switch(head, backend, assignment, data)

    def _drop_mirrors(self) -> None:
        mirrors, self._mirrors = self._mirrors, None
        for mirror in mirrors or ():
            mirror.close()

    def log_access(self, status: int, now: float | None = None) -> None:
        """The request in hand is over: count it, and write its line; 499 for a client that has gone."""
        factory = self.factory
        if now is None:
            now = factory.seconds()
        took_s = now - self._began_s if self.request is not None else 0.0
        factory.durations.observe(took_s, status, self._route)
        if self._recorded is not None:
            self._record(status, took_s)
        log = factory.access_log
        if log is None:
            return
        request = self.request
        if request is None:
            host = self.client_address.host
            log.add(Record(host, b"-", b"-", (1, 1), status, 0, service=factory.name, ended_s=now))
            return
        agent, referer = request.agent, request.referer
        if agent is None or referer is None:
            agent, referer = _named(request)
        log.add(
            _new(
                Record,
                (
                    self.client_address.host,
                    request.method,
                    request.target,
                    request.version,
                    status,
                    self.sent_octets,
                    referer,
                    agent,
                    request.authority,
                    took_s,
                    self._body_octets,
                    self._backend_name,
                    factory.name,
                    self._trace,
                    self._route,
                    now,
                ),
            )
        )

    def _record(self, status: int, took_s: float) -> None:
        recorded, self._recorded = self._recorded, None
        factory = self.factory
        if recorded is None or self.request is None or factory.tracing is None:
            return
        for span in spans_of(
            recorded,
            request=self.request,
            status=status,
            client=self.client_address.host,
            service=factory.name,
            route=self._route,
            tls=factory.tls,
            began_s=self._began_s,
            ended_s=self._began_s + took_s,
            backend=self._asked,
            asked_s=self._asked_s,
            attempts=self._attempts,
        ):
            factory.tracing.add(span)

    def _retry_status(self) -> bool:
        """Leave a response that the route does not want its clients to see; true when somebody else is asked."""
        raise NotImplementedError


def _named(request: RequestHead) -> tuple[bytes, bytes]:
    """(User-Agent, Referer)."""
    referer = agent = b""
    for name, value in request.fields:
        size = len(name)
        if size == 10 and name.lower() == b"user-agent":
            agent = value
        elif size == 7 and name.lower() == b"referer":
            referer = value
    return agent, referer
