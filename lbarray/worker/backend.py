"""Connections to back ends. Each carries one request at a time and is kept for the next."""

from __future__ import annotations

import typing
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from lbarray.http.framing import ResponseParser, ResponseSink
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.worker.eager import make_eager

__all__ = ["Asker", "BackendConnection", "BackendFactory"]

#: Octets of a request's content that wait for the connection before the client is paused.
UNSENT_LIMIT = 65536


class Asker(ResponseSink, typing.Protocol):
    """Whose request a connection carries: hears the response, and what became of the connection."""

    transport: Any

    def backend_connected(self) -> None:
        """It is open; what waited has been sent."""

    def backend_unreachable(self, unsent: list[bytes]) -> None:
        """It could not be opened; ``unsent`` is the request as far as it was handed over."""

    def backend_broken(self, why: str) -> None:
        """It ended before the response did, or what it carried is no response."""

    def flush(self) -> None:
        """All that one reading brought has been told."""


class BackendConnection(Protocol):
    """One TCP connection to a back end.

    :ivar client: whose request it carries now, ``None`` while idle.
    :ivar reused: it has carried a request before, so the back end may have closed it meanwhile.
    """

    transport: Any

    def __init__(self, limits: Limits) -> None:
        self.client: Asker | None = None
        self.reused = False
        self.connected_once = False
        self.lost = False
        self._parser: ResponseParser | None = None
        self._limits = limits
        self._unsent: list[bytes] = []
        self._unsent_octets = 0
        self._paused_client = False
        self._assignment: Any = None

    def carry(self, client: Asker, method: bytes, octets: list[bytes]) -> None:
        """Send a request's head, and what there is of its content already."""
        self.client = client
        if self._parser is None:
            self._parser = ResponseParser(client, self._limits)
        else:
            self._parser.sink = client
        self._parser.expect(method)
        if self.connected_once:
            self.reused = True
            self.transport.writeSequence(octets)
        else:
            self._unsent = octets

    def write(self, octets: bytes) -> None:
        """Send more of the content; a client that is faster than the back end is paused."""
        if self.connected_once:
            self.transport.write(octets)
            return
        self._unsent.append(octets)
        self._unsent_octets += len(octets)
        if self._unsent_octets > UNSENT_LIMIT and not self._paused_client and self.client is not None:
            self._paused_client = True
            self.client.transport.pauseProducing()

    def take_unsent(self) -> list[bytes]:
        """What the back end has not got: for another one to try."""
        unsent, self._unsent = self._unsent, []
        if self._paused_client and self.client is None:
            self._paused_client = False
        return unsent

    @property
    def begun(self) -> bool:
        """Something of the response has come."""
        return self._parser is not None and self._parser.begun

    def stored(self, assignment: Any) -> None:
        """It is idle from now on, in the store that ``assignment`` belongs to."""
        self.client = None
        self._assignment = assignment

    def close(self) -> None:
        """Close now; nobody waits for anything."""
        self.client = None
        self._assignment = None
        if self.connected_once and not self.lost:
            self.transport.abortConnection()

    # IProtocol

    def connectionMade(self) -> None:
        self.connected_once = True
        self.transport.setTcpNoDelay(True)
        make_eager(self.transport)
        client = self.client
        if client is None:  # it gave up while we were connecting
            self.transport.abortConnection()
            return
        # The client's own connection pauses us when it cannot take more.
        if self._unsent:
            self.transport.writeSequence(self._unsent)
            self._unsent = []
        client.backend_connected()
        if self._paused_client:
            self._paused_client = False
            client.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        client = self.client
        try:
            if client is None or self._parser is None:
                raise BadMessage("unexpected", "octets from a back end that was not asked")
            self._parser.feed(data)
        except BadMessage as error:
            self._refuse(error)
            return
        client.flush()

    def _refuse(self, error: BadMessage) -> None:
        client, self.client = self.client, None
        assignment, self._assignment = self._assignment, None
        if assignment is not None:
            assignment.forget_connection(self)
        self.transport.abortConnection()
        if client is not None:
            client.backend_broken(error.why)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        assignment, self._assignment = self._assignment, None
        if assignment is not None:
            assignment.forget_connection(self)
        client, self.client = self.client, None
        if client is None:
            return
        if self._parser is not None and self._parser.eof():
            client.flush()
        else:
            client.backend_broken("closed")


class BackendFactory(ClientFactory):
    """Makes one :class:`BackendConnection` for a request that waits for it."""

    noisy = False

    def __init__(self, connection: BackendConnection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> BackendConnection:
        self._connection.factory = self
        return self._connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        connection = self._connection
        connection.lost = True
        client, connection.client = connection.client, None
        if client is not None:
            client.backend_unreachable(connection.take_unsent())
