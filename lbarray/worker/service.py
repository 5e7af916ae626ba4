"""The worker as a service of the node: listens for every service, serves, and stops without breaking anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from lbarray.http.forwarding import Forwarding
from lbarray.http.limits import Limits
from lbarray.telemetry.counters import Counters
from lbarray.values import Load, ServiceId
from lbarray.worker.backend import IdleLifetimes
from lbarray.worker.factory import ClientFactory
from lbarray.worker.listeners import listening_socket
from lbarray.worker.tls.contexts import context_factory

__all__ = ["ListenerSpec", "TlsFiles", "WorkerService"]

SWEEP_S = 0.5


@attrs.frozen
class TlsFiles:
    """Where a service's certificate chain and key are."""

    certificate: Path
    key: Path


@attrs.frozen
class ListenerSpec:
    """One service to listen for.

    :ivar name: the configuration's.
    :ivar upgrades: protocols that its clients may switch to.
    """

    name: str
    service_id: ServiceId
    tls: TlsFiles | None = None
    upgrades: tuple[str, ...] = ("websocket",)


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """The TLS context of a service; handshakes that begin after a change get the new one."""

    def __init__(self, options: CertificateOptions) -> None:
        self.options = options

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return SSL.Connection(self.options.getContext(), None)


class _Listener:
    """One service while it is served."""

    def __init__(self, spec: ListenerSpec, factory: ClientFactory, contexts: _Creator | None) -> None:
        self.spec = spec
        self.factory = factory
        self.contexts = contexts
        self.port: Any = None

    def listen(self, reactor: Any) -> None:
        """:raises SystemRefused: the port is not to be had."""
        outer: Any = self.factory
        if self.contexts is not None:
            outer = TLSMemoryBIOFactory(self.contexts, False, self.factory)
            outer.noisy = False
            # We write once per reading already; gathering small writes would only cost a timer each.
            outer.protocol = TLSMemoryBIOProtocol
        listener = listening_socket(str(self.spec.service_id.address), self.spec.service_id.port)
        with listener:
            self.port = reactor.adoptStreamPort(listener.fileno(), listener.family, outer)

    def close(self) -> Deferred[Any] | None:
        """Accept nobody any more; clients that are here end after the request in hand."""
        port, self.port = self.port, None
        self.factory.stopping = True
        for connection in list(self.factory.connections):
            connection.stop()
        return port.stopListening() if port is not None else None


class WorkerService(Service):
    """Serves clients on all listeners of this process.

    :param requests: an :class:`lbarray.interfaces.IRequestScheduler`.
    :param filters: :class:`lbarray.interfaces.IResponseFilter` providers for every service.
    :param node_name: named in responses; empty for not.
    :param stop_grace_s: how long requests in hand may take to end when the service stops.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        listeners: Sequence[ListenerSpec],
        requests: Any,
        filters: Sequence[Any],
        limits: Limits,
        counters: Counters,
        forwarding: Forwarding | None = None,
        node_name: str = "",
        stop_grace_s: float = 10.0,
    ) -> None:
        self._reactor = reactor
        self._specs = tuple(listeners)
        self._requests = requests
        self._counters = counters
        self._filters = tuple(filters)
        self._limits = limits
        self._forwarding = forwarding or Forwarding()
        self._lifetimes = IdleLifetimes()
        self._node_name = node_name
        self._stop_grace_s = stop_grace_s
        self._listeners: dict[str, _Listener] = {}
        self._leaving: list[_Listener] = []
        self._last_load = (reactor.seconds(), 0)
        self._sweeps = LoopingCall(self._sweep)
        self._sweeps.clock = reactor

    def startService(self) -> None:
        """:raises SystemRefused: a port or a certificate is not to be had; nothing listens then."""
        self._listeners = self._opened(self._specs)
        super().startService()
        self._sweeps.start(SWEEP_S, now=False)

    def _opened(self, specs: Sequence[ListenerSpec]) -> dict[str, _Listener]:
        """Listeners for these, all or none.

        :raises SystemRefused: one is not to be had.
        """
        made = {spec.name: _Listener(spec, self._factory(spec), _contexts(spec)) for spec in specs}
        try:
            for listener in made.values():
                listener.listen(self._reactor)
        except Exception:
            for listener in made.values():
                listener.close()
            raise
        return made

    def _factory(self, spec: ListenerSpec) -> ClientFactory:
        return ClientFactory(
            reactor=self._reactor,
            service_id=spec.service_id,
            tls=spec.tls is not None,
            requests=self._requests,
            filters=self._filters,
            limits=self._limits,
            counters=self._counters,
            forwarding=self._forwarding,
            upgrades=spec.upgrades,
            lifetimes=self._lifetimes,
            node_name=self._node_name,
        )

    def reconfigure(
        self,
        *,
        listeners: Sequence[ListenerSpec],
        filters: Sequence[Any],
        limits: Limits,
        node_name: str,
        stop_grace_s: float,
        forwarding: Forwarding | None = None,
    ) -> None:
        """Serve like this: new services listen, those that are gone end after the requests in hand, the others keep
        every connection and follow from their next request or handshake on. Certificates are read again.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        stays = {spec.name for spec in listeners if spec.name in self._listeners and self._same_place(spec)}
        contexts = {spec.name: _contexts(spec) for spec in listeners if spec.name in stays}
        before = (self._filters, self._limits, self._forwarding, self._node_name)
        self._filters, self._limits, self._node_name = tuple(filters), limits, node_name
        self._forwarding = forwarding or Forwarding()
        try:
            opened = self._opened([spec for spec in listeners if spec.name not in stays])
        except Exception:
            self._filters, self._limits, self._forwarding, self._node_name = before
            raise
        self._stop_grace_s = stop_grace_s
        for name in [name for name in self._listeners if name not in stays]:
            gone = self._listeners.pop(name)
            gone.close()
            self._leaving.append(gone)
        for spec in listeners:
            if spec.name in stays:
                listener = self._listeners[spec.name]
                listener.spec = spec
                listener.factory.reconfigure(
                    filters=self._filters,
                    limits=limits,
                    forwarding=self._forwarding,
                    upgrades=spec.upgrades,
                    node_name=node_name,
                )
                new = contexts[spec.name]
                if new is not None and listener.contexts is not None:
                    listener.contexts.options = new.options
        self._listeners.update(opened)
        self._specs = tuple(listeners)

    def _same_place(self, spec: ListenerSpec) -> bool:
        old = self._listeners[spec.name].spec
        return old.service_id == spec.service_id and (old.tls is None) == (spec.tls is None)

    @property
    def factories(self) -> Mapping[str, ClientFactory]:
        """What makes the connections of each service."""
        return {name: listener.factory for name, listener in self._listeners.items()}

    def _all(self) -> list[_Listener]:
        return [*self._listeners.values(), *self._leaving]

    def _sweep(self) -> None:
        for listener in self._all():
            listener.factory.sweep()
        self._leaving = [listener for listener in self._leaving if listener.factory.connections]

    def stopService(self) -> Deferred[Any]:
        """Stop accepting at once; the Deferred fires when the requests in hand have ended, or their grace has."""
        super().stopService()
        stopped: Deferred[Any] = DeferredList([d for listener in self._all() if (d := listener.close()) is not None])
        return stopped.addCallback(lambda _: self._wait(self._reactor.seconds() + self._stop_grace_s))

    def _wait(self, until: float) -> Deferred[None] | None:
        if not self.connections or self._reactor.seconds() >= until:
            for listener in self._all():
                for connection in list(listener.factory.connections):
                    connection.transport.abortConnection()
            if self._sweeps.running:
                self._sweeps.stop()
            return None
        later: Deferred[None] = Deferred()
        later.addCallback(lambda _: self._wait(until))
        self._reactor.callLater(0.05, later.callback, None)
        return later

    @property
    def connections(self) -> int:
        """Clients' connections open now."""
        return sum(len(listener.factory.connections) for listener in self._all())

    @property
    def requests_begun(self) -> int:
        """Requests since the start."""
        return sum(factory.requests_begun for factory in self.factories.values())

    def load(self) -> Load:
        """How busy we are; the rate is over the time since the last call. ``cpu`` is not known here."""
        now, count = self._reactor.seconds(), self.requests_begun
        then, before = self._last_load
        self._last_load = (now, count)
        rate = (count - before) / (now - then) if now > then else 0.0
        return Load(connections=self.connections, requests_per_s=rate)

    def status(self) -> dict[str, object]:
        """What the console shows, by service."""
        return {
            name: {
                "at": str(listener.spec.service_id),
                "tls": listener.spec.tls is not None,
                "connections": len(listener.factory.connections),
                "accepted": listener.factory.accepted,
                "requests": listener.factory.requests_begun,
                "tunnels": listener.factory.tunnels,
            }
            for name, listener in self._listeners.items()
        }


def _contexts(spec: ListenerSpec) -> _Creator | None:
    """:raises SystemRefused: the certificate or its key will not do."""
    return _Creator(context_factory(spec.tls.certificate, spec.tls.key, service=spec.name)) if spec.tls else None
