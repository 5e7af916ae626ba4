"""Connections to back ends. Each carries one request at a time and is kept for the next."""

from __future__ import annotations

import socket
import typing
from typing import Any

from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from lbarray.http.events import Fields, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.responses import ResponseParser, ResponseSink

__all__ = ["UNSENT_LIMIT", "Asker", "BackendConnection", "BackendFactory", "IdleLifetimes"]

#: Octets of a request's content that wait for the connection before the client is paused.
UNSENT_LIMIT = 65536

#: Share of the time after which a back end closes idle connections; younger ones are safe from that.
_SAFE_SHARE = 0.5


class Asker(ResponseSink, typing.Protocol):
    """Whose request a connection carries: hears the response, and what became of the connection."""

    upload: Any

    def backend_connected(self) -> None:
        """It is open; what waited has been sent."""

    def backend_unreachable(self, unsent: list[bytes], timed_out: bool) -> None:
        """It could not be opened; ``unsent`` is the request as far as it was handed over."""

    def backend_broken(self, why: str) -> None:
        """It ended before the response did, or what it carried is no response."""

    def flush(self) -> None:
        """All that one reading brought has been told."""


class TunnelSide(typing.Protocol):
    """Hears the back end of a connection that is no longer HTTP."""

    def data(self, data: bytes) -> None:
        """Octets."""

    def ended(self) -> None:
        """It sends no more."""

    def lost(self) -> None:
        """It is gone."""


class _Nobody(ResponseSink):
    """Hears what a parser still tells when its request was given up in the middle of it."""

    def response_head(self, head: ResponseHead) -> None:
        """Too late."""

    def response_body(self, data: bytes) -> None:
        """Too late."""

    def response_trailers(self, fields: Fields) -> None:
        """Too late."""

    def response_end(self, reusable: bool) -> None:
        """Too late."""

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        """Too late."""


_NOBODY = _Nobody()


class IdleLifetimes:
    """How long each back end leaves an idle connection open, learnt from when it closed some.

    Keyed by (host, port); seconds. A back end that was restarted closes them early, so the value recovers.
    """

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, int], float] = {}

    def closed_after(self, place: tuple[str, int], seconds: float) -> None:
        """A back end closed a connection that had been idle for so long."""
        known = self._seconds.get(place)
        if known is not None and seconds > known:
            # Slowly: a busy worker notices an end late, and the next one is not later for that.
            seconds = known + 0.05 * (seconds - known)
        self._seconds[place] = seconds

    def safe_s(self, place: tuple[str, int]) -> float:
        """Idle for less than this, a connection is not about to be closed; infinite while nothing is known."""
        known = self._seconds.get(place)
        return float("inf") if known is None else known * _SAFE_SHARE


class BackendConnection(Protocol):
    """One TCP connection to a back end.

    :param place: (host, port) of the back end, for ``lifetimes``.
    :ivar client: whose request it carries now, ``None`` while idle.
    :ivar attempt: ``IConnector``: the connecting, as long as it goes on.
    :ivar reused: it has carried a request before, so the back end may have closed it meanwhile.
    """

    transport: Any

    def __init__(
        self,
        limits: Limits,
        place: tuple[str, int] = ("", 0),
        lifetimes: IdleLifetimes | None = None,
        seconds: typing.Callable[[], float] = float,
    ) -> None:
        self.client: Asker | None = None
        self.reused = False
        self.connected_once = False
        self.lost = False
        self._limits = limits
        self._place = place
        self._lifetimes = lifetimes
        self._seconds = seconds
        self._idle_since = 0.0
        self._parser: ResponseParser | None = None
        self._unsent: list[bytes] = []
        self._unsent_octets = 0
        self._paused_client = False
        self._uploading = False
        self._paused = False
        self._assignment: Any = None
        self._tunnel: Any = None
        self.attempt: Any = None

    def carry(self, client: Asker, method: bytes, octets: list[bytes], upgrade: bool = False) -> None:
        """Send a request's head, and what there is of its content already."""
        self.client = client
        if self._parser is None:
            self._parser = ResponseParser(client, self._limits)
        else:
            self._parser.sink = client
        self._parser.expect(method, upgrade)
        if self.connected_once:
            self.reused = True
            self._assignment = None
            if len(octets) == 1:
                self.transport.write(octets[0])
            else:
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
            self.client.upload.pauseProducing()

    def take_unsent(self) -> list[bytes]:
        """What the back end has not got: for another one to try."""
        unsent, self._unsent = self._unsent, []
        return unsent

    @property
    def begun(self) -> bool:
        """Something of the response has come."""
        return self._parser is not None and self._parser.begun

    def trusted(self, now: float) -> bool:
        """May an idle one carry a request that cannot be repeated?

        Not when the back end has closed it already, nor when it may be about to.
        """
        if self._lifetimes is not None and now - self._idle_since >= self._lifetimes.safe_s(self._place):
            return False
        handle = getattr(self.transport, "getHandle", None)
        if handle is None:
            return True
        handle = handle()
        if not isinstance(handle, socket.socket):
            return True  # behind TLS there may be octets that are no response
        try:
            handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False  # its end, or octets that nobody asked for

    def stored(self, assignment: Any, now: float) -> None:
        """It is idle from ``now`` on, in the store that ``assignment`` belongs to."""
        self.client = None
        self._assignment = assignment
        self._idle_since = now
        if self._paused:
            self.resume()  # a slow client may have paused it; an idle one must hear its end

    def close(self) -> None:
        """Close now; nobody waits for anything."""
        self.client = None
        self._assignment = None
        if self._parser is not None:
            self._parser.sink = _NOBODY
        if self.lost:
            return
        if self.connected_once:
            self.end_upload()
            self.transport.abortConnection()
        elif self.attempt is not None:
            self.attempt.stopConnecting()

    # Pace

    def begin_upload(self, producer: Any) -> None:
        """``producer`` (IPushProducer) is paused while the back end takes no more."""
        if self.connected_once and not self.lost and not self._uploading:
            self._uploading = True
            self.transport.registerProducer(producer, True)

    def end_upload(self) -> None:
        """The content is complete, or its rest is not wanted."""
        if self._uploading:
            self._uploading = False
            if not self.lost:
                self.transport.unregisterProducer()

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        if self.connected_once and not self.lost:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Read again."""
        self._paused = False
        if self.connected_once and not self.lost:
            self.transport.resumeProducing()

    # IProtocol

    def connectionMade(self) -> None:
        self.connected_once = True
        self.transport.setTcpNoDelay(True)
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
            client.upload.resumeProducing()

    def become(self, side: TunnelSide) -> None:
        """No longer HTTP: what comes from now on is told to ``side``."""
        self._tunnel = side
        self.client = None
        alsoProvides(self, IHalfCloseableProtocol)

    def readConnectionLost(self) -> None:
        """The back end of a tunnel sends no more."""
        self._tunnel.ended()

    def writeConnectionLost(self) -> None:
        """Our side of a tunnel is closed."""

    def dataReceived(self, data: bytes) -> None:
        client = self.client
        if self._tunnel is not None:
            self._tunnel.data(data)
            return
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
        if self._tunnel is not None:
            self._tunnel.lost()
            return
        assignment, self._assignment = self._assignment, None
        client, self.client = self.client, None
        if client is None:
            if assignment is not None:
                assignment.forget_connection(self)
                if self._lifetimes is not None:
                    self._lifetimes.closed_after(self._place, self._seconds() - self._idle_since)
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
            client.backend_unreachable(connection.take_unsent(), bool(reason.check(ConnectTimeout)))
