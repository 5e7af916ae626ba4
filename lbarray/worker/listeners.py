"""The sockets on which a service listens, and what becomes of each connection that they accept."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.telemetry.counters import Counters
from lbarray.worker.stream import ACCEPT_AGAIN, Stream, address_of

__all__ = ["StreamPort", "listening_socket"]

BACKLOG = 4096
#: Connections taken in one turn before those that are here are served.
ACCEPTS_PER_TURN = 64
#: Seconds without accepting when the process has no descriptors left.
RECOVER_S = 0.2


def listening_socket(host: str, port: int, *, reuse_port: bool = False, mss: int = 0) -> socket.socket:
    """A non-blocking TCP socket that listens on ``host`` and ``port``.

    ``TCP_NODELAY`` and keepalive are set here once: accepted connections inherit them.

    :param reuse_port: others of this machine may listen there too (``SO_REUSEPORT``).
    :param mss: octets that a client may send in one segment; 0: as much as the interface allows.
    :raises SystemRefused: the port is taken, the address is not ours, or it needs privilege.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if mss:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        advice = {
            errno.EADDRINUSE: f"see who has it: ss -ltnp 'sport = :{port}'",
            errno.EADDRNOTAVAIL: f"is {host} an address of this machine? ip addr",
            errno.EACCES: "ports below 1024 need root (CAP_NET_BIND_SERVICE)",
        }.get(error.errno or 0, "")
        raise SystemRefused(f"listen on TCP {host}:{port}", errno=error.errno or 0, advice=advice) from None
    return listener


@implementer(IListeningPort, IReadDescriptor)
class StreamPort:
    """Accepts connections and hands each to ``begin``, which by default builds its protocol on a plain stream.

    :param factory: any ``IProtocolFactory``; a ``buildProtocol`` that returns ``None`` refuses the connection.
    :ivar begin: ``begin(socket, peer)``: set it for what comes before the protocol (PROXY protocol, TLS).
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        listener: socket.socket,
        factory: Any,
        counters: Counters,
    ) -> None:
        self.reactor = reactor
        self.factory = factory
        self._listener = listener
        self._family = listener.family
        self._accept = listener._accept  # type: ignore[attr-defined]  # without building an object twice
        self._counters = counters
        self.begin: Callable[[socket.socket, Any], None] = self.begin_plain
        self._listening = False
        self._recovery: Any = None

    def startListening(self) -> None:
        if not self._listening:
            self._listening = True
            self.factory.doStart()
            self.reactor.addReader(self)

    def stopListening(self) -> Deferred[None]:
        """Accept no more and close our descriptor of the socket; accepted connections go on."""
        if self._recovery is not None and self._recovery.active():
            self._recovery.cancel()
        if self._listening:
            self._listening = False
            self.reactor.removeReader(self)
            self.factory.doStop()
        self._listener.close()
        return succeed(None)

    def getHost(self) -> Any:
        return address_of(self._listener.getsockname(), self._family)

    # IReadDescriptor

    def fileno(self) -> int:
        return self._listener.fileno()

    def logPrefix(self) -> str:
        return "listener"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor shuts down."""
        self.stopListening()

    def doRead(self) -> None:
        """Take what waits."""
        for _ in range(ACCEPTS_PER_TURN):
            try:
                fd, peer = self._accept()
            except OSError as error:
                if error.errno not in ACCEPT_AGAIN:
                    self._out_of_descriptors(error)
                return
            sock = socket.socket(self._family, socket.SOCK_STREAM, 0, fileno=fd)
            sock.setblocking(False)
            try:
                self.begin(sock, address_of(peer, self._family))
            except Exception:
                self.log.failure("a connection could not be begun")
                sock.close()

    def _out_of_descriptors(self, error: OSError) -> None:
        # Those who wait stay in the backlog until somebody has left; polling the listener would only burn time.
        self._counters.add("accept_failed", errno.errorcode.get(error.errno or 0, "unknown").lower())
        self.reactor.removeReader(self)
        self._recovery = self.reactor.callLater(RECOVER_S, self._recover)

    def _recover(self) -> None:
        if self._listening:
            self.reactor.addReader(self)

    def begin_plain(self, sock: socket.socket, peer: Any) -> None:
        """No TLS: the protocol has the connection at once."""
        protocol = self.factory.buildProtocol(peer)
        if protocol is None:
            sock.close()
            return
        Stream(sock, self.reactor, protocol, peer).open()
