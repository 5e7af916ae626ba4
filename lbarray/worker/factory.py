"""The factory of one service's clients, and all that its connections share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from lbarray.http.forwarding import Forwarding
from lbarray.http.limits import Limits
from lbarray.telemetry.access_log import AccessLog
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import Durations
from lbarray.values import BackendAddress, ServiceId
from lbarray.worker.backend import BackendConnection, IdleLifetimes
from lbarray.worker.client import ClientConnection
from lbarray.worker.clients import Clients
from lbarray.worker.connector import Connector
from lbarray.worker.settings import HttpSettings

__all__ = ["ClientFactory"]

#: Seconds that a connection may be idle while there are nearly as many as there may be.
CROWDED_IDLE_S = 1.0


class ClientFactory(ServerFactory):
    """Makes the connections of one service.

    :param requests: an :class:`lbarray.interfaces.IRequestScheduler`.
    :param filters: :class:`lbarray.interfaces.IResponseFilter` providers, the first is nearest to the back end.
    :param http: what its clients may do; the defaults if it is not given.
    :param node_name: tell in responses who made them; empty for not.
    :param connector: opens connections to back ends; plain ones if it is not given.
    :param clients: those of all services of this process.
    :param access_log: has a line for each request. :param name: of the service, for the log.
    """

    noisy = False
    #: Makes each connection, of this factory and the client that it is counted for: a
    #: :class:`~lbarray.worker.connection.ServedConnection` or one like it.
    protocol: Any = ClientConnection
    #: Has the spans of requests: a :class:`~lbarray.telemetry.export.SpanExporter`, or ``None``.
    tracing: Any = None

    def __init__(
        self,
        *,
        reactor: Any,
        service_id: ServiceId,
        tls: bool,
        requests: Any,
        filters: Sequence[Any],
        limits: Limits,
        counters: Counters,
        forwarding: Forwarding | None = None,
        http: HttpSettings | None = None,
        lifetimes: IdleLifetimes | None = None,
        node_name: str = "",
        connector: Connector | None = None,
        clients: Clients | None = None,
        access_log: AccessLog | None = None,
        name: str = "",
    ) -> None:
        self.reactor = reactor
        self.access_log = access_log
        self.name = name
        self.connector = connector or Connector(reactor=reactor, counters=counters)
        self.clients = clients if clients is not None else Clients(limits)
        self.seconds = reactor.seconds
        self.service_id = service_id
        self.tls = tls
        self.requests = requests
        self.filters = tuple(filters)
        self.limits = limits
        self.counters = counters
        self.durations = Durations(counters, name)
        self.forwarding = forwarding or Forwarding()
        self.use(http or HttpSettings())
        self.lifetimes = lifetimes or IdleLifetimes()
        self.node_field = (b"X-Lbarray-Node", node_name.encode()) if node_name else None
        self.connections: set[Any] = set()
        self.accepted = 0
        self.requests_begun = 0
        self.tunnels = 0
        self.stopping = False

    def reconfigure(
        self,
        *,
        filters: Sequence[Any],
        limits: Limits,
        forwarding: Forwarding,
        http: HttpSettings,
        node_name: str,
        connector: Connector | None = None,
    ) -> None:
        """Serve like this: connections that are open follow from their next request on where they can."""
        self.connector = connector or Connector(reactor=self.reactor, counters=self.counters)
        self.filters = tuple(filters)
        self.limits = limits
        self.forwarding = forwarding
        self.use(http)
        self.node_field = (b"X-Lbarray-Node", node_name.encode()) if node_name else None

    def use(self, http: HttpSettings) -> None:
        """What clients that connect from now on may do."""
        self.alpn: tuple[bytes, ...] = http.alpn
        self.h2c = http.h2c and not self.tls
        self.upgrades = frozenset(name.lower().encode() for name in http.upgrades)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", "")
        client, refused = self.clients.connected(host, exempt=self.forwarding.trusts(host))
        if refused:
            self.counters.add("connections_refused", refused)
            return None
        return self.protocol(self, client)

    def backend_connection(self, backend: BackendAddress) -> BackendConnection:
        """A connection to this back end that is not open yet."""
        return BackendConnection(self.limits, (backend.host, backend.port), self.lifetimes, self.seconds)

    def sweep(self) -> None:
        """End what has been waiting for too long. Called about once a second; costs nothing per request."""
        now = self.seconds()
        late = [connection for connection in self.connections if connection.deadline <= now]
        for connection in late:
            connection.timed_out()
        if self.clients.crowded:
            # Whoever waits for nothing makes room for whoever comes.
            soon = now + self.limits.keepalive_timeout_s - CROWDED_IDLE_S
            for connection in [each for each in self.connections if each.idle and each.deadline <= soon]:
                self.counters.add("timeouts", "crowded")
                connection.stop()
