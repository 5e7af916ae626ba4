"""One service while it is served: its listener, what comes before HTTP, and its connections."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import attrs
from twisted.internet.task import LoopingCall

from lbarray.telemetry.counters import Counters
from lbarray.values import ServiceId
from lbarray.worker.factory import ClientFactory
from lbarray.worker.listeners import StreamPort, listening_socket
from lbarray.worker.preamble import PreambleAcceptor
from lbarray.worker.settings import HttpSettings
from lbarray.worker.tls.acceptor import TlsAcceptor
from lbarray.worker.tls.contexts import Policy
from lbarray.worker.tls.limiter import HandshakeLimiter
from lbarray.worker.tls.settings import TlsSettings
from lbarray.worker.tls.store import CertificateStore

__all__ = ["ListenerSpec", "ServedService", "make_store"]


@attrs.frozen
class ListenerSpec:
    """One service to listen for.

    :ivar name: the configuration's.
    :ivar http: what its clients may do.
    :ivar protocol: an :class:`lbarray.interfaces.IServiceProtocol`; ``None`` for HTTP.
    :ivar proxies: networks whose connections begin with a PROXY header.
    :ivar mss: octets that a client may send in one TCP segment; 0: as the interface allows.
    """

    name: str
    service_id: ServiceId
    tls: TlsSettings | None = None
    http: HttpSettings = HttpSettings()
    protocol: Any = None
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    mss: int = 0


def make_store(
    spec: ListenerSpec, alpn: Sequence[bytes], counters: Counters, *, warn: bool = True
) -> CertificateStore | None:
    """The certificates of a service, read and checked; ``None`` for a plain one.

    :param alpn: the protocols that the service speaks, by preference.
    :param warn: say which of them end soon.
    :raises SystemRefused: a certificate or its key will not do.
    """
    tls = spec.tls
    if tls is None:
        return None
    policy = Policy(profile=tls.profile, protocols=tuple(alpn), clients=tls.clients, tells_sessions=tls.tells_sessions)
    store = CertificateStore(service=spec.name, files=tls.files, policy=policy, strict=tls.strict, counters=counters)
    store.load(warn=warn)
    return store


class ServedService:
    """Serves one service in this process.

    :param listening: gives the listening socket; a new one of our own if it is not given.
    :ivar store: its certificates; ``None`` without TLS.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        spec: ListenerSpec,
        factory: ClientFactory,
        store: CertificateStore | None,
        counters: Counters,
        listening: Callable[[ListenerSpec], socket.socket] | None = None,
    ) -> None:
        self.spec = spec
        self.factory = factory
        self.store = store
        self._reactor = reactor
        self._counters = counters
        self._listening = listening or _own_socket
        self._port: StreamPort | None = None
        self._acceptor: TlsAcceptor | None = None
        self._preamble: PreambleAcceptor | None = None
        self._looks: LoopingCall | None = None
        # What connections passed through that came before the settings of now, or before the end.
        self._before: list[list[TlsAcceptor | PreambleAcceptor]] = []

    def listen(self) -> None:
        """:raises SystemRefused: the port is not to be had."""
        self._port = StreamPort(
            reactor=self._reactor,
            listener=self._listening(self.spec),
            factory=self.factory,
            counters=self._counters,
        )
        self._arrange(self._port)
        self._port.startListening()

    def _arrange(self, port: StreamPort) -> None:
        """What a new connection passes through: PROXY header, TLS, HTTP."""
        tls = self.spec.tls
        port.begin = port.begin_plain
        if tls is not None and self.store is not None:
            self._acceptor = TlsAcceptor(
                reactor=self._reactor,
                factory=self.factory,
                store=self.store,
                limiter=HandshakeLimiter(
                    at_once=tls.handshakes_at_once,
                    per_second=tls.handshakes_per_second,
                    burst=4 * tls.handshakes_per_second,
                ),
                timeout_s=tls.handshake_timeout_s,
                asks_clients=tls.clients.mode != "off",
                counters=self._counters,
                tells_sessions=tls.tells_sessions,
            )
            port.begin = self._acceptor.begin
            self._looks = LoopingCall(self._look_at_files)
            self._looks.clock = self._reactor
            self._looks.start(tls.reload_s, now=False)
        if self.spec.proxies:
            self._preamble = PreambleAcceptor(
                reactor=self._reactor,
                trusted=self.spec.proxies,
                begin=port.begin,
                timeout_s=self.factory.limits.header_timeout_s,
                counters=self._counters,
            )
            port.begin = self._preamble.begin

    def _look_at_files(self) -> None:
        if self.store is not None:
            self.store.refresh()
            self.store.check_expiry()

    def follow(self, spec: ListenerSpec, store: CertificateStore | None) -> None:
        """The same place with other settings: connections and session tickets stay, new connections meet the new."""
        if self.store is not None and store is not None:
            self.store.follow(store)
        if spec != self.spec:
            self.spec = spec
            full, resumed = (self._acceptor.full, self._acceptor.resumed) if self._acceptor is not None else (0, 0)
            self._retire()
            if self._port is not None:
                self._arrange(self._port)
            if self._acceptor is not None:
                self._acceptor.full, self._acceptor.resumed = full, resumed

    def _retire(self) -> None:
        """Whoever comes now meets something else; handshakes in progress go on as they began."""
        if self._looks is not None and self._looks.running:
            self._looks.stop()
        passed = [each for each in (self._acceptor, self._preamble) if each is not None]
        if passed:
            self._before.append(passed)
        self._acceptor = self._preamble = self._looks = None

    @property
    def beginning(self) -> int:
        """Connections that are not HTTP's yet: PROXY header or handshake are in progress."""
        return sum(len(each) for each in self._passed())

    def _passed(self) -> list[TlsAcceptor | PreambleAcceptor]:
        now = [each for each in (self._acceptor, self._preamble) if each is not None]
        return [*now, *(each for passed in self._before for each in passed)]

    def close(self) -> None:
        """Accept nobody any more; clients that are here end after the request in hand."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
        self._retire()
        self.factory.stopping = True
        for connection in list(self.factory.connections):
            connection.stop()

    def abort(self) -> None:
        """Nobody is waited for any more."""
        for each in self._passed():
            each.stop()
        for connection in list(self.factory.connections):
            connection.transport.abortConnection()

    def sweep(self) -> None:
        """End what has been waiting for too long."""
        self.factory.sweep()
        for each in self._passed():
            each.sweep()
        self._before = [passed for passed in self._before if any(len(each) for each in passed)]

    def status(self) -> dict[str, object]:
        """What the console shows."""
        shown: dict[str, object] = {
            "at": str(self.spec.service_id),
            "tls": self.spec.tls is not None,
            "connections": len(self.factory.connections),
            "accepted": self.factory.accepted,
            "requests": self.factory.requests_begun,
            "tunnels": self.factory.tunnels,
        }
        if self._acceptor is not None:
            shown.update(self._acceptor.status())
        return shown


def _own_socket(spec: ListenerSpec) -> socket.socket:
    return listening_socket(str(spec.service_id.address), spec.service_id.port, mss=spec.mss)
