"""Connections to back ends, opened: TCP, then a PROXY header and TLS where the pool wants them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, TimeoutError, UserError
from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.telemetry.counters import Counters
from lbarray.values import BackendAddress, ClientAddress, ServiceId
from lbarray.worker.proxy_protocol import proxy_header
from lbarray.worker.stream import Stream
from lbarray.worker.tls.backend import BackendTls
from lbarray.worker.tls.stream import TlsStream

__all__ = ["Connector"]


class Connector:
    """Opens connections to back ends.

    :param tls: by pool, how its back ends are met over TLS; a pool that is not in it is met without.
    :param proxy_protocol: by pool, the version (1 or 2) of the PROXY header that its back ends want.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        counters: Counters,
        tls: Mapping[str, BackendTls] | None = None,
        proxy_protocol: Mapping[str, int] | None = None,
    ) -> None:
        self._reactor = reactor
        self._counters = counters
        self._tls = dict(tls or {})
        self._proxy_protocol = dict(proxy_protocol or {})

    def connect(
        self,
        backend: BackendAddress,
        factory: Any,
        timeout_s: float,
        client: ClientAddress | None = None,
        service: ServiceId | None = None,
    ) -> Attempt:
        """Connect; the protocol of ``factory`` (an ``IProtocolFactory`` with ``clientConnectionFailed``) has the
        connection when it is ready for requests.

        :param client: whom the PROXY header names. :param service: where that client went.
        """
        version = self._proxy_protocol.get(backend.pool)
        preamble = b""
        if version is not None:
            preamble = proxy_header(
                version,
                (client.host, client.port) if client is not None else None,
                (str(service.address), service.port) if service is not None else None,
            )
        attempt = Attempt(self._reactor, backend, factory, preamble, self._tls.get(backend.pool), self._counters)
        attempt.start(timeout_s)
        return attempt


@implementer(IReadDescriptor, IWriteDescriptor)
class Attempt:
    """One connection on its way."""

    def __init__(
        self,
        reactor: Any,
        backend: BackendAddress,
        factory: Any,
        preamble: bytes,
        tls: BackendTls | None,
        counters: Counters,
    ) -> None:
        self._reactor = reactor
        self._backend = backend
        self._factory = factory
        self._preamble = preamble
        self._tls = tls
        self._counters = counters
        self._sock: socket.socket | None = None
        self._stream: TlsStream | None = None
        self._timeout: Any = None
        self._over = False
        self._watched = False

    def start(self, timeout_s: float) -> None:
        """Begin; it fails by itself after ``timeout_s``."""
        self._timeout = self._reactor.callLater(timeout_s, self._fail, TimeoutError())
        host = self._backend.host
        try:
            family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        except ValueError:
            found: Deferred[Any] = deferToThreadPool(
                self._reactor,
                self._reactor.getThreadPool(),
                socket.getaddrinfo,
                host,
                self._backend.port,
                type=socket.SOCK_STREAM,
            )
            found.addCallback(lambda places: self._connect(places[0][0], places[0][4]))
            found.addErrback(self._unresolved)
            return
        self._connect(family, (host, self._backend.port))

    def _unresolved(self, failure: Failure) -> None:
        self._later(ConnectError(string=f"no address for {self._backend.host}: {failure.getErrorMessage()}"))

    def _connect(self, family: int, place: tuple[Any, ...]) -> None:
        if self._over:
            return
        try:
            sock = self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._later(ConnectError(error.errno, error.strerror))
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = sock.connect_ex(place)
        if result in (0, errno.EINPROGRESS):
            # Also when it is there at once: the caller is told later, never from within its call.
            self._watched = True
            self._reactor.addWriter(self)
        else:
            self._later(ConnectError(result, errno.errorcode.get(result, "")))

    def _later(self, error: Exception) -> None:
        self._reactor.callLater(0, self._fail, error)

    # IReadDescriptor, IWriteDescriptor

    def fileno(self) -> int:
        return self._sock.fileno() if self._sock is not None else -1

    def logPrefix(self) -> str:
        return "connector"

    def doRead(self) -> None:
        """Only written to."""

    def doWrite(self) -> None:
        """The connection is there, or is refused."""
        sock = self._sock
        assert sock is not None
        self._unwatch()
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(ConnectError(error, errno.errorcode.get(error, "")))
            return
        try:
            if self._preamble:
                sock.send(self._preamble)  # the first octets of a connection always fit
        except OSError as refused:
            self._fail(ConnectError(refused.errno, refused.strerror))
            return
        if self._tls is None:
            self._done(Stream(sock, self._reactor))
            return
        connection = self._tls.connection(sock, self._backend)
        self._stream = TlsStream(sock, self._reactor, connection, ready=self._shaken, failed=self._unshaken)
        self._stream.begin()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor's word that the descriptor is of no further use."""
        if self._watched:
            sock = self._sock
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if sock is not None else 0
            self._fail(ConnectError(error, errno.errorcode.get(error, "")))

    def _shaken(self, stream: TlsStream) -> None:
        assert self._tls is not None
        why = self._tls.refuses(stream, self._backend)
        if why:
            self._counters.add("backend_tls_failed", why)
            self._stream = None
            stream.abortConnection()
            self._fail(ConnectError(string=why), close=False)
            return
        self._done(stream)

    def _unshaken(self, stream: TlsStream, why: str) -> None:
        self._counters.add("backend_tls_failed", why)
        self._stream = None
        self._fail(ConnectError(string=why), close=False)

    # The end

    def _done(self, stream: Stream) -> None:
        self._over = True
        self._timeout.cancel()
        protocol = self._factory.buildProtocol(None)
        if protocol is None:
            stream.connected = True
            stream.abortConnection()
            return
        stream.protocol = protocol
        stream.open()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._reactor.removeWriter(self)

    def _fail(self, error: Exception, *, close: bool = True) -> None:
        if self._over:
            return
        self._over = True
        self._unwatch()
        if self._timeout.active():
            self._timeout.cancel()
        if self._stream is not None:
            self._stream.fail("timed_out")
        elif self._sock is not None and close:
            self._sock.close()
        self._factory.clientConnectionFailed(self, Failure(error))

    def disconnect(self) -> None:
        """Give up (``IConnector``)."""
        self._fail(UserError())

    stopConnecting = disconnect
