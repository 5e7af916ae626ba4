"""The worker as a service of the node: listens for every service, serves, and stops without breaking anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

from lbarray.http.limits import Limits
from lbarray.telemetry.counters import Counters
from lbarray.values import Load, ServiceId
from lbarray.worker.client import ClientFactory
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
    """One service to listen for. ``name`` is the configuration's."""

    name: str
    service_id: ServiceId
    tls: TlsFiles | None = None


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
        node_name: str = "",
        stop_grace_s: float = 10.0,
    ) -> None:
        self._reactor = reactor
        self._listeners = tuple(listeners)
        self._stop_grace_s = stop_grace_s
        self._ports: list[Any] = []
        self._last_load = (reactor.seconds(), 0)
        self.factories: Mapping[str, ClientFactory] = {
            spec.name: ClientFactory(
                reactor=reactor,
                service_id=spec.service_id,
                tls=spec.tls is not None,
                requests=requests,
                filters=filters,
                limits=limits,
                counters=counters,
                node_name=node_name,
            )
            for spec in listeners
        }
        self._sweeps = LoopingCall(self._sweep)
        self._sweeps.clock = reactor

    def startService(self) -> None:
        """:raises SystemRefused: a port or a certificate is not to be had; nothing listens then."""
        try:
            for spec in self._listeners:
                self._ports.append(self._listen(spec))
        except Exception:
            for port in self._ports:
                port.stopListening()
            self._ports.clear()
            raise
        super().startService()
        self._sweeps.start(SWEEP_S, now=False)

    def _listen(self, spec: ListenerSpec) -> Any:
        factory: Any = self.factories[spec.name]
        if spec.tls is not None:
            contexts = context_factory(spec.tls.certificate, spec.tls.key, service=spec.name)
            factory = TLSMemoryBIOFactory(contexts, False, factory)
            factory.noisy = False
            # We write once per reading already; gathering small writes would only cost a timer each.
            factory.protocol = TLSMemoryBIOProtocol
        listener = listening_socket(str(spec.service_id.address), spec.service_id.port)
        with listener:
            return self._reactor.adoptStreamPort(listener.fileno(), listener.family, factory)

    def _sweep(self) -> None:
        for factory in self.factories.values():
            factory.sweep()

    def stopService(self) -> Deferred[Any]:
        """Stop accepting at once; the Deferred fires when the requests in hand have ended, or their grace has."""
        super().stopService()
        stopped: Deferred[Any] = DeferredList([d for port in self._ports if (d := port.stopListening()) is not None])
        self._ports.clear()
        for factory in self.factories.values():
            factory.stopping = True
            for connection in list(factory.connections):
                connection.stop()
        return stopped.addCallback(lambda _: self._wait(self._reactor.seconds() + self._stop_grace_s))

    def _wait(self, until: float) -> Deferred[None] | None:
        if not self.connections or self._reactor.seconds() >= until:
            for factory in self.factories.values():
                for connection in list(factory.connections):
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
        return sum(len(factory.connections) for factory in self.factories.values())

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
            spec.name: {
                "at": str(spec.service_id),
                "tls": spec.tls is not None,
                "connections": len(self.factories[spec.name].connections),
                "accepted": self.factories[spec.name].accepted,
                "requests": self.factories[spec.name].requests_begun,
            }
            for spec in self._listeners
        }
