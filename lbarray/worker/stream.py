"""TCP connections without layers: the transport of every client's and back end's connection.

Twisted's own transport collects what is written, wakes for it, and is told of each event through a logging context. A
proxy's writes nearly always fit into the socket, so here they are tried on the spot; only what does not fit waits for
the reactor. It is an ``ITCPTransport`` all the same: any Protocol runs on it.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IPushProducer,
    IReadDescriptor,
    ITCPTransport,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.values import TlsSession

__all__ = ["HIGH_WATER", "READ_SIZE", "Stream", "address_of"]

#: Octets read at once; a reading that fills it is followed by larger ones, up to BULK_READ_SIZE.
READ_SIZE = 65536
BULK_READ_SIZE = 262144
#: Octets that wait for a slow peer before its producer is paused.
HIGH_WATER = 65536
#: Octets that are cheaper to copy together than to hand over in pieces.
_JOIN_BELOW = 8192
#: Pieces handed to one sendmsg (IOV_MAX is 1024).
VECTOR = 64

DONE = Failure(ConnectionDone())
_NO_LINGER = b"\1\0\0\0\0\0\0\0"


def address_of(peer: tuple[Any, ...], family: int = socket.AF_INET) -> IPv4Address | IPv6Address:
    """A socket's address as Twisted says it; an IPv4 client of an IPv6 socket is an IPv4 client."""
    host, port = peer[0], peer[1]
    if family == socket.AF_INET6:
        if host.startswith("::ffff:") and "." in host:
            return IPv4Address("TCP", host[7:], port)
        return IPv6Address("TCP", host, port)
    return IPv4Address("TCP", host, port)


@implementer(ITCPTransport, IConsumer, IPushProducer, IReadDescriptor, IWriteDescriptor)
class Stream:
    """One connected socket and its protocol.

    :param protocol: any ``IProtocol``; may be given later, before :meth:`open`.
    :ivar connected: between the protocol's ``connectionMade`` and ``connectionLost``.
    :ivar disconnecting: ``loseConnection`` was called.
    """

    __slots__ = (
        "__weakref__",
        "_fd",
        "_paused_producer",
        "_peer",
        "_producer",
        "_read_size",
        "_reading",
        "_recv",
        "_send",
        "_sock",
        "_streaming",
        "_unsent",
        "_unsent_octets",
        "_write_closed",
        "_writing",
        "connected",
        "disconnected",
        "disconnecting",
        "peer",
        "protocol",
        "reactor",
    )

    #: ``None``: no TLS, nothing negotiated.
    negotiatedProtocol: bytes | None = None
    #: Lines that tell a back end who the client proved to be.
    client_fields: bytes = b""
    #: The client's TLS session, where back ends are chosen by it.
    tls_session: TlsSession | None = None

    def __init__(self, sock: socket.socket, reactor: Any, protocol: Any = None, peer: Any = None) -> None:
        self._sock = sock
        self._fd = sock.fileno()
        self._recv = sock.recv
        self._send = sock.send
        self.reactor = reactor
        self.protocol = protocol
        self.peer = peer
        self.connected = False
        self.disconnected = False
        self.disconnecting = False
        self._read_size = READ_SIZE
        self._reading = False
        self._writing = False
        self._write_closed = False
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_octets = 0
        self._producer: Any = None
        self._streaming = True
        self._paused_producer = False

    def open(self) -> None:
        """Give the protocol its transport and begin to read."""
        self.connected = True
        if not self._reading:
            self._reading = True
            self.reactor.addReader(self)
        try:
            self.protocol.makeConnection(self)
        except Exception:
            self._end(Failure())  # no descriptor of ours may stay with the reactor
            raise

    @property
    def unsent_octets(self) -> int:
        """What was written and waits for the peer."""
        return self._unsent_octets

    # IReadDescriptor, IWriteDescriptor

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return type(self.protocol).__name__ if self.protocol is not None else "-"

    def doRead(self) -> None:
        """Tell the protocol what has come. Never returns a reason: it ends by itself."""
        try:
            data = self._recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(Failure(ConnectionLost(error.strerror)))
            return
        if data:
            # A reading that is filled is bulk: fewer and larger ones then.
            if len(data) == self._read_size < BULK_READ_SIZE:
                self._read_size = BULK_READ_SIZE
            self.protocol.dataReceived(data)
        else:
            self._input_ended()

    def _input_ended(self) -> None:
        if not self._write_closed and IHalfCloseableProtocol.providedBy(self.protocol):
            self._stop_reading()
            self.protocol.readConnectionLost()
        else:
            self._end(DONE)

    def doWrite(self) -> None:
        """Send what waits."""
        unsent = self._unsent
        while unsent:
            pieces = list(unsent)[:VECTOR] if len(unsent) > VECTOR else unsent
            try:
                sent = self._sock.sendmsg(pieces)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._end(Failure(ConnectionLost(error.strerror)))
                return
            self._unsent_octets -= sent
            while sent:
                first = unsent[0]
                if sent < len(first):
                    unsent[0] = memoryview(first)[sent:]
                    return
                sent -= len(first)
                unsent.popleft()
        self._drained()

    def _drained(self) -> None:
        """Nothing waits any more."""
        self._stop_writing()
        if self._producer is not None and (self._paused_producer or not self._streaming):
            self._paused_producer = False
            self._producer.resumeProducing()
        elif self.disconnecting:
            self._finish_closing()
        elif self._write_closed:
            self._shut_write()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor's word that the descriptor is of no further use."""
        self._end(reason)

    # ITransport

    def write(self, data: bytes) -> None:
        if self._unsent or self.disconnected or self._write_closed or not data:
            self._later(data)
            return
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # It shows once more when the reactor tries: connectionLost is never called from within write.
            sent = 0
        if sent < len(data):
            self._later(memoryview(data)[sent:] if sent else data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        pieces = list(iovec)
        if sum(map(len, pieces)) < _JOIN_BELOW or len(pieces) > VECTOR:
            self.write(b"".join(pieces))
            return
        sent = 0
        if not (self._unsent or self.disconnected or self._write_closed):
            try:
                sent = self._sock.sendmsg(pieces)
            except OSError:
                sent = 0  # full, or gone: both show when the reactor tries
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
            else:
                self._later(memoryview(piece)[sent:] if sent else piece)
                sent = 0

    def _later(self, data: bytes | memoryview) -> None:
        if not data or self.disconnected or self._write_closed:
            return
        self._unsent.append(data)
        self._unsent_octets += len(data)
        if not self._writing:
            self._writing = True
            self.reactor.addWriter(self)
        if (
            self._unsent_octets > HIGH_WATER
            and self._producer is not None
            and self._streaming
            and not self._paused_producer
        ):
            self._paused_producer = True
            self._producer.pauseProducing()

    def loseConnection(self) -> None:
        """End in order once everything is sent and an unfinished producer has gone."""
        if self.disconnected or self.disconnecting:
            return
        self.disconnecting = True
        self._stop_reading()
        if not self._unsent and self._producer is None:
            self.reactor.callLater(0, self._finish_closing)

    def _finish_closing(self) -> None:
        self._end(DONE)

    def abortConnection(self) -> None:
        """End at once, with a reset."""
        if self.disconnected:
            return
        self.disconnecting = True
        self._unsent.clear()
        self._unsent_octets = 0
        self._stop_reading()
        self._stop_writing()
        self._reset_on_close()
        self.reactor.callLater(0, self._end, Failure(ConnectionAborted()))

    def _reset_on_close(self) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        except OSError:
            pass

    def loseWriteConnection(self) -> None:
        """Close our side only; what the peer sends is still read."""
        if self.disconnected or self._write_closed:
            return
        self._write_closed = True
        if not self._unsent:
            self._shut_write()

    def _shut_write(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.writeConnectionLost()

    def _end(self, reason: Failure) -> None:
        """The one place where a connection ends."""
        if self.disconnected:
            return
        self.disconnected = True
        self._stop_reading()
        self._stop_writing()
        self._unsent.clear()
        self._unsent_octets = 0
        self._close_socket()
        self._fd = -1
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        protocol, connected = self.protocol, self.connected
        self.connected = False
        self.protocol = None
        if connected:
            protocol.connectionLost(reason)

    def _close_socket(self) -> None:
        self._sock.close()

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError(f"{self!r} has the producer {self._producer!r} already")
        if self.disconnected:
            producer.stopProducing()
            return
        self._producer = producer
        self._streaming = streaming
        self._paused_producer = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting and not self._unsent and not self.disconnected:
            self.reactor.callLater(0, self._finish_closing)

    # IPushProducer

    def pauseProducing(self) -> None:
        self._stop_reading()

    def resumeProducing(self) -> None:
        if not self._reading and self.connected and not self.disconnecting:
            self._reading = True
            self.reactor.addReader(self)

    def stopProducing(self) -> None:
        self.loseConnection()

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.reactor.removeWriter(self)

    # ITCPTransport

    def getPeer(self) -> Any:
        if self.peer is None:
            self.peer = address_of(self._sock.getpeername(), self._sock.family)
        return self.peer

    def getHost(self) -> Any:
        return address_of(self._sock.getsockname(), self._sock.family)

    def getHandle(self) -> socket.socket:
        """The socket."""
        return self._sock

    def getTcpNoDelay(self) -> bool:
        return bool(self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Every connection here is without delay from its beginning; only switching it off does something."""
        if not enabled:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)

    def getTcpKeepAlive(self) -> bool:
        return bool(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))


#: Errors of accept that say nothing about the listener.
ACCEPT_AGAIN = frozenset([errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EPERM, errno.EINTR])
