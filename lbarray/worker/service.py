"""The worker as a service of the node: listens for every service, serves, and stops without breaking anything."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall

from lbarray.http.forwarding import Forwarding
from lbarray.http.limits import Limits
from lbarray.telemetry.access_log import AccessLog
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.export import SpanExporter
from lbarray.values import Load
from lbarray.worker.backend import IdleLifetimes
from lbarray.worker.clients import Clients
from lbarray.worker.connector import Connector
from lbarray.worker.factory import ClientFactory
from lbarray.worker.served import ListenerSpec, ServedService, make_store
from lbarray.worker.tls.backend import BackendTls, BackendTlsSettings

__all__ = ["ListenerSpec", "WorkerService"]

SWEEP_S = 0.5


class WorkerService(Service):
    """Serves clients on all listeners of this process.

    :param requests: an :class:`lbarray.interfaces.IRequestScheduler`.
    :param filters: :class:`lbarray.interfaces.IResponseFilter` providers for every service.
    :param node_name: named in responses; empty for not.
    :param stop_grace_s: how long requests in hand may take to end when the service stops.
    :param backend_tls: by pool, how its back ends are met over TLS.
    :param proxy_protocol: by pool, the version of the PROXY header that its back ends want.
    :param access_log: has a line for each request.
    :param counts: connections of the node's other processes; see :class:`lbarray.worker.clients.Clients`.
    :param listening: gives the listening socket of a service; new ones of our own if it is not given.
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
        backend_tls: Mapping[str, BackendTlsSettings] | None = None,
        proxy_protocol: Mapping[str, int] | None = None,
        listening: Callable[[ListenerSpec], socket.socket] | None = None,
        access_log: AccessLog | None = None,
        tracing: SpanExporter | None = None,
        counts: Any = None,
    ) -> None:
        self._reactor = reactor
        self._specs = tuple(listeners)
        self._requests = requests
        self._counters = counters
        self._filters = tuple(filters)
        self._limits = limits
        self._forwarding = forwarding or Forwarding()
        self._lifetimes = IdleLifetimes()
        self._clients = Clients(limits, counts)
        self._node_name = node_name
        self._stop_grace_s = stop_grace_s
        self._to_backends = (backend_tls or {}, proxy_protocol or {})
        self._connector: Connector | None = None
        self._listening = listening
        self._access_log = access_log
        if access_log is not None:
            access_log.seconds = reactor.seconds
        self._tracing = tracing
        self._listeners: dict[str, ServedService] = {}
        self._leaving: list[ServedService] = []
        self._last_load = (reactor.seconds(), 0)
        self._sweeps = LoopingCall(self._sweep)
        self._sweeps.clock = reactor

    def startService(self) -> None:
        """:raises SystemRefused: a port or a certificate is not to be had; nothing listens then."""
        self._connector = self._make_connector(*self._to_backends)
        if self._access_log is not None:
            self._access_log.start()
        if self._tracing is not None:
            self._tracing.startService()
        self._listeners = self._opened(self._specs)
        super().startService()
        self._sweeps.start(SWEEP_S, now=False)

    def _make_connector(self, tls: Mapping[str, BackendTlsSettings], proxy_protocol: Mapping[str, int]) -> Connector:
        """:raises SystemRefused: certificates or authorities for back ends will not do."""
        return Connector(
            reactor=self._reactor,
            counters=self._counters,
            tls={pool: BackendTls(settings) for pool, settings in tls.items()},
            proxy_protocol=proxy_protocol,
        )

    def _opened(self, specs: Sequence[ListenerSpec]) -> dict[str, ServedService]:
        """Listeners for these, all or none.

        :raises SystemRefused: one is not to be had.
        """
        made = {spec.name: self._served(spec) for spec in specs}
        try:
            for listener in made.values():
                listener.listen()
        except Exception:
            for listener in made.values():
                listener.close()
            raise
        return made

    def _served(self, spec: ListenerSpec) -> ServedService:
        factory = self._factory(spec)
        return ServedService(
            reactor=self._reactor,
            spec=spec,
            factory=factory,
            store=make_store(spec, factory.alpn, self._counters),
            counters=self._counters,
            listening=self._listening,
        )

    def _factory(self, spec: ListenerSpec) -> ClientFactory:
        make = spec.protocol.factory if spec.protocol is not None else ClientFactory
        factory: ClientFactory = make(
            reactor=self._reactor,
            service_id=spec.service_id,
            tls=spec.tls is not None,
            requests=self._requests,
            filters=self._filters,
            limits=self._limits,
            counters=self._counters,
            forwarding=self._forwarding,
            http=spec.http,
            clients=self._clients,
            lifetimes=self._lifetimes,
            node_name=self._node_name,
            connector=self._connector,
            access_log=self._access_log,
            name=spec.name,
        )
        factory.tracing = self._tracing
        return factory

    def reconfigure(
        self,
        *,
        listeners: Sequence[ListenerSpec],
        filters: Sequence[Any],
        limits: Limits,
        node_name: str,
        stop_grace_s: float,
        forwarding: Forwarding | None = None,
        backend_tls: Mapping[str, BackendTlsSettings] | None = None,
        proxy_protocol: Mapping[str, int] | None = None,
    ) -> None:
        """Serve like this: new services listen, those that are gone end after the requests in hand, the others keep
        every connection and follow from their next request or handshake on. Certificates are read again.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        stays = {spec.name for spec in listeners if spec.name in self._listeners and self._same_place(spec)}
        connector = self._make_connector(backend_tls or {}, proxy_protocol or {})
        stores = {
            spec.name: make_store(spec, self._listeners[spec.name].factory.alpn, self._counters)
            for spec in listeners
            if spec.name in stays
        }
        before = (self._filters, self._limits, self._forwarding, self._node_name, self._connector)
        self._filters, self._limits, self._node_name, self._connector = tuple(filters), limits, node_name, connector
        self._forwarding = forwarding or Forwarding()
        try:
            opened = self._opened([spec for spec in listeners if spec.name not in stays])
        except Exception:
            self._filters, self._limits, self._forwarding, self._node_name, self._connector = before
            raise
        self._stop_grace_s = stop_grace_s
        self._clients.use(limits)
        for name in [name for name in self._listeners if name not in stays]:
            gone = self._listeners.pop(name)
            gone.close()
            self._leaving.append(gone)
        for spec in listeners:
            if spec.name in stays:
                listener = self._listeners[spec.name]
                listener.factory.reconfigure(
                    filters=self._filters,
                    limits=limits,
                    forwarding=self._forwarding,
                    http=spec.http,
                    node_name=node_name,
                    connector=connector,
                )
                listener.follow(spec, stores[spec.name])
        self._listeners.update(opened)
        self._specs = tuple(listeners)

    def _same_place(self, spec: ListenerSpec) -> bool:
        old = self._listeners[spec.name].spec
        return (old.service_id, old.tls is None, _speaks(old)) == (spec.service_id, spec.tls is None, _speaks(spec))

    def use_access_log(self, log: AccessLog | None) -> None:
        """Write to this one from now on; the one before is closed.

        :raises SystemRefused: it cannot be opened; the one before goes on.
        """
        if log is not None:
            log.seconds = self._reactor.seconds
            if self.running:
                log.start()
        before, self._access_log = self._access_log, log
        for listener in self._all():
            listener.factory.access_log = log
        if before is not None:
            before.stop()

    def use_tracing(self, tracing: SpanExporter | None) -> None:
        """Give the spans to this one from now on."""
        before, self._tracing = self._tracing, tracing
        for listener in self._all():
            listener.factory.tracing = tracing
        if tracing is not None and self.running:
            tracing.startService()
        if before is not None:
            before.stopService()

    def reopen_logs(self) -> None:
        """The access log was renamed: write to a new file of its name."""
        if self._access_log is not None:
            self._access_log.reopen()

    def reload_certificates(self) -> dict[str, bool]:
        """Read every TLS service's certificates anew, by command; which services use what was read."""
        return {
            name: listener.store.reload() for name, listener in self._listeners.items() if listener.store is not None
        }

    @property
    def factories(self) -> Mapping[str, ClientFactory]:
        """What makes the connections of each service."""
        return {name: listener.factory for name, listener in self._listeners.items()}

    def _all(self) -> list[ServedService]:
        return [*self._listeners.values(), *self._leaving]

    def _sweep(self) -> None:
        for listener in self._all():
            listener.sweep()
        self._clients.forget(self._reactor.seconds())
        if self._access_log is not None:
            self._access_log.flush()
        self._leaving = [each for each in self._leaving if each.factory.connections or each.beginning]

    def stopService(self) -> Deferred[Any]:
        """Stop accepting at once; the Deferred fires when the requests in hand have ended, or their grace has."""
        super().stopService()
        for listener in self._all():
            listener.close()
        return maybeDeferred(self._wait, self._reactor.seconds() + self._stop_grace_s)

    def _wait(self, until: float) -> Deferred[None] | None:
        beginning = sum(listener.beginning for listener in self._all())
        if not (self.connections or beginning) or self._reactor.seconds() >= until:
            for listener in self._all():
                listener.abort()
            if self._sweeps.running:
                self._sweeps.stop()
            if self._access_log is not None:
                self._access_log.stop()
            ended: Deferred[None] | None = self._tracing.stopService() if self._tracing is not None else None
            return ended
        later: Deferred[None] = Deferred()
        later.addCallback(lambda _: self._wait(until))
        self._reactor.callLater(0.05, later.callback, None)
        return later

    @property
    def serving(self) -> bool:
        """Whoever connects is served."""
        return bool(self.running)

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
        return {name: listener.status() for name, listener in self._listeners.items()}


def _speaks(spec: ListenerSpec) -> str:
    return spec.protocol.name if spec.protocol is not None else "http"
