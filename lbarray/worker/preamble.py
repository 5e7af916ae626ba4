"""What a trusted proxy says first on a connection: its PROXY header is read, and nothing behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.telemetry.counters import Counters
from lbarray.worker.proxy_protocol import BadProxyHeader, ProxyHeader

__all__ = ["PreambleAcceptor"]

Network = IPv4Network | IPv6Network


class PreambleAcceptor:
    """Stands before TLS or HTTP on a service that has proxies in front.

    Connections from ``trusted`` networks must begin with a PROXY header; all others are clients of their own, whose
    octets are not looked at here. So nobody but a trusted proxy can claim to be somebody else.

    :param begin: takes the socket and the client's address once it is known.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        trusted: Sequence[Network],
        begin: Callable[[socket.socket, Any], None],
        timeout_s: float,
        counters: Counters,
    ) -> None:
        self._reactor = reactor
        self._trusted = tuple(trusted)
        self._begin = begin
        self._timeout_s = timeout_s
        self._counters = counters
        self._waiting: dict[_Preamble, float] = {}

    def begin(self, sock: socket.socket, peer: Any) -> None:
        """Take a connection."""
        address = ip_address(peer.host)
        if not any(address in network for network in self._trusted):
            self._begin(sock, peer)
            return
        preamble = _Preamble(self, sock, peer)
        self._waiting[preamble] = self._reactor.seconds()
        self._reactor.addReader(preamble)

    def done(self, preamble: _Preamble, peer: Any) -> None:
        """The header is complete."""
        self.drop(preamble)
        self._begin(preamble.sock, peer)

    def refuse(self, preamble: _Preamble, why: str) -> None:
        """No header came, or none that can be read."""
        if preamble in self._waiting:
            self._counters.add("proxy_header_refused", why)
            self.drop(preamble)
            preamble.sock.close()

    def drop(self, preamble: _Preamble) -> None:
        """It no longer waits."""
        if self._waiting.pop(preamble, None) is not None:
            self._reactor.removeReader(preamble)

    def __len__(self) -> int:
        """How many connections are waited for."""
        return len(self._waiting)

    def sweep(self) -> None:
        """Refuse those that take too long. Called about twice a second."""
        late = self._reactor.seconds() - self._timeout_s
        for preamble in [preamble for preamble, began in self._waiting.items() if began <= late]:
            self.refuse(preamble, "timed_out")

    def stop(self) -> None:
        """Nobody is waited for any more."""
        for preamble in list(self._waiting):
            self.refuse(preamble, "stopped")


@implementer(IReadDescriptor)
class _Preamble:
    """One connection whose header is not complete."""

    def __init__(self, acceptor: PreambleAcceptor, sock: socket.socket, peer: Any) -> None:
        self.sock = sock
        self._fd = sock.fileno()
        self._acceptor = acceptor
        self._peer = peer
        self._header = ProxyHeader()

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "preamble"

    def doRead(self) -> None:
        """Look at what is there, and take what belongs to the header: TLS reads the socket by itself afterwards."""
        try:
            seen = self.sock.recv(4096, socket.MSG_PEEK)
            if not seen:
                self._acceptor.refuse(self, "closed")
                return
            self.sock.recv(self._header.feed(seen))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._acceptor.refuse(self, "closed")
            return
        except BadProxyHeader as error:
            self._acceptor.refuse(self, error.why)
            return
        result = self._header.result
        if result is not None:
            self._acceptor.done(self, self._peer if result.source is None else _address(*result.source))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor's word that the descriptor is of no further use."""
        self._acceptor.refuse(self, "closed")


def _address(host: str, port: int) -> IPv4Address | IPv6Address:
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
