"""Connections of services that are no HTTP, passed on octet for octet: the base for relays of your own."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from lbarray.errors import BadInput
from lbarray.http.events import RequestHead
from lbarray.values import Outcome
from lbarray.worker.backend import BackendFactory
from lbarray.worker.connection import ServedConnection
from lbarray.worker.factory import ClientFactory
from lbarray.worker.settings import HttpSettings
from lbarray.worker.tunnel import Tunnel

__all__ = ["RelayConnection", "RelayFactory"]


class RelayConnection(ServedConnection):
    """One client's connection, joined to one of a back end, each at the other's pace.

    Routes, policies, persistence, queues and health work as for a request whose method is :attr:`method`. Of the client
    nothing is read before there is somebody to tell. A subclass may look at what the client sends (``dataReceived``),
    or speak first (``connectionMade``); :meth:`done` ends it.
    """

    #: What rules of routes see as the method.
    method = b"RELAY"
    tunnel: Any = None
    assigned: Any = None
    backend: Any = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()
        head = RequestHead(self.method, b"/", [])
        try:
            self.assigned = self.factory.requests.assign(self.factory.service_id, head, self.client_address)
        except BadInput:
            self.transport.loseConnection()
            return
        if self.assigned.answer is not None:  # there is nobody who could read it
            self.done(Outcome.CLIENT_GONE)
        elif self.assigned.waiting:
            self.assigned.wait(self._connect)
        else:
            self._connect(None)

    def _connect(self, refused: BadInput | None) -> None:
        if refused is not None or self.assigned is None:
            self.done(Outcome.CLIENT_GONE)
            return
        factory, backend = self.factory, self.assigned.backend
        self.backend = factory.backend_connection(backend)
        self.backend.carry(self, b"", [])
        self.backend.attempt = factory.connector.connect(
            backend,
            BackendFactory(self.backend),
            factory.limits.connect_timeout_s,
            self.client_address,
            factory.service_id,
        )

    # What the back end's connection tells

    def backend_connected(self) -> None:
        self.tunnel = Tunnel(self.transport, self.backend.transport, self.moved, self.done)
        self.backend.become(self.tunnel.backend_side)
        self.tunnel.start(b"", b"")
        self.transport.resumeProducing()

    def backend_unreachable(self, unsent: list[bytes], timed_out: bool) -> None:
        self.backend = None
        following = self.assigned.another(unsent=True)
        self.assigned.finished(Outcome.CONNECT_FAILED)
        self.assigned = following
        if following is None:
            self.transport.loseConnection()
        else:
            self._connect(None)

    def backend_broken(self, why: str) -> None:
        self.done(Outcome.BROKEN)

    # IProtocol

    def dataReceived(self, data: bytes) -> None:
        self.tunnel.from_client(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.tunnel is not None:
            self.tunnel.close()
        elif self.backend is not None:
            self.backend.close()
        self.done(Outcome.CLIENT_GONE)

    def done(self, outcome: Outcome = Outcome.ANSWERED) -> None:
        """It is over, for the pool and for the client."""
        assigned, self.assigned = self.assigned, None
        if assigned is not None:
            assigned.finished(outcome)
        self.transport.loseConnection()


class RelayFactory(ClientFactory):
    """Such connections, for one service."""

    protocol = RelayConnection

    def use(self, http: HttpSettings) -> None:
        super().use(http)
        self.alpn = ()  # no HTTP in the handshake
