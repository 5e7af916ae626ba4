"""A copy of a request for a back end that nobody waits for."""

from __future__ import annotations

from typing import Any

from lbarray.http.events import Fields, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.responses import ResponseSink
from lbarray.values import Outcome
from lbarray.worker.backend import BackendConnection, BackendFactory

__all__ = ["Mirror"]

#: Octets of content that a mirror may be behind; one that is slower than that is left.
BEHIND_LIMIT = 262144


class Mirror(ResponseSink):
    """Sends what it is given and drops what comes back."""

    def __init__(self, factory: Any, assignment: Any, method: bytes, head: bytes) -> None:
        limits: Limits = factory.limits
        self._assignment = assignment
        self._status = 0
        self._octets = 0
        self._behind = False
        self.upload = self
        connection = assignment.idle_connection()
        if connection is None:
            connection = BackendConnection(limits)
            connection.carry(self, method, [head])
            connection.attempt = factory.connector.connect(
                assignment.backend, BackendFactory(connection), limits.connect_timeout_s
            )
        else:
            connection.carry(self, method, [head])
            connection.begin_upload(self)
        self._backend: BackendConnection | None = connection
        self._late = factory.reactor.callLater(limits.response_timeout_s, self.close)

    def write(self, octets: bytes) -> None:
        """More of the request."""
        backend = self._backend
        if backend is None:
            return
        if self._behind or not backend.connected_once:
            self._octets += len(octets)
            if self._octets > BEHIND_LIMIT:
                self.close()
                return
        backend.write(octets)

    # IPushProducer: pausing does not reach the client, it only says that the mirror is behind

    def pauseProducing(self) -> None:
        self._behind = True

    def resumeProducing(self) -> None:
        self._behind = False
        self._octets = 0

    def stopProducing(self) -> None:
        """Its connection is going away."""

    def close(self) -> None:
        """Nobody wants it any longer."""
        self._end(Outcome.CLIENT_GONE, keep=False)

    def _end(self, outcome: Outcome, *, keep: bool) -> None:
        assignment, self._assignment = self._assignment, None
        backend, self._backend = self._backend, None
        if self._late.active():
            self._late.cancel()
        if assignment is None:
            return
        assignment.finished(outcome)
        if backend is None:
            return
        backend.end_upload()
        if keep and not backend.lost:
            backend.stored(assignment, 0.0)
            assignment.keep_connection(backend)
        else:
            backend.close()

    # Asker

    def backend_connected(self) -> None:
        self.resumeProducing()
        if self._backend is not None:
            self._backend.begin_upload(self)

    def backend_unreachable(self, unsent: list[bytes], timed_out: bool) -> None:
        self._backend = None
        self._end(Outcome.CONNECT_FAILED, keep=False)

    def backend_broken(self, why: str) -> None:
        self._backend = None
        self._end(Outcome.BROKEN, keep=False)

    def response_head(self, head: ResponseHead) -> None:
        self._status = head.status

    def response_body(self, data: bytes) -> None:
        """Dropped."""

    def response_trailers(self, fields: Fields) -> None:
        """Dropped."""

    def response_end(self, reusable: bool) -> None:
        self._end(Outcome.SERVER_ERROR if self._status >= 500 else Outcome.ANSWERED, keep=reusable)

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        self.close()

    def flush(self) -> None:
        """Nothing to write."""
