"""A TCP relay, for IMAP say: TLS ends here, octets go on. A plug-in: put it into a folder twisted/plugins."""

from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from lbarray.errors import BadInput
from lbarray.http.events import RequestHead
from lbarray.interfaces import IServiceProtocol
from lbarray.values import Outcome
from lbarray.worker.backend import BackendFactory
from lbarray.worker.connection import ServedConnection
from lbarray.worker.factory import ClientFactory
from lbarray.worker.settings import HttpSettings
from lbarray.worker.tunnel import Tunnel


class Relay(ServedConnection):
    tunnel: Any = None

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.pauseProducing()  # until there is somebody to tell
        head = RequestHead(b"RELAY", b"/", [])  # routes, policies and queues work as for a request
        try:
            self.assigned = self.factory.requests.assign(self.factory.service_id, head, self.client_address)
        except BadInput:
            self.transport.loseConnection()
            return
        self.assigned.wait(self.connect) if self.assigned.waiting else self.connect(None)

    def connect(self, refused: BadInput | None) -> None:
        if refused is not None:
            self.done(Outcome.CLIENT_GONE)
            return
        self.backend = self.factory.backend_connection(self.assigned.backend)
        self.backend.carry(self, b"", [])
        factory = BackendFactory(self.backend)
        self.factory.connector.connect(self.assigned.backend, factory, self.factory.limits.connect_timeout_s)

    def backend_connected(self) -> None:
        self.tunnel = Tunnel(self.transport, self.backend.transport, self.moved, self.done)
        self.backend.become(self.tunnel.backend_side)
        self.tunnel.start(b"", b"")
        self.transport.resumeProducing()

    def backend_unreachable(self, unsent: list[bytes], timed_out: bool) -> None:
        self.done(Outcome.CONNECT_FAILED)

    def dataReceived(self, data: bytes) -> None:
        self.tunnel.from_client(data)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if self.tunnel is not None:
            self.tunnel.close()

    def done(self, outcome: Outcome = Outcome.ANSWERED) -> None:
        self.assigned.finished(outcome)
        self.transport.loseConnection()


class RelayFactory(ClientFactory):
    protocol = Relay

    def use(self, http: HttpSettings) -> None:
        super().use(http)
        self.alpn = ()  # no HTTP in the handshake either


@implementer(IPlugin, IServiceProtocol)
class Plugin:
    name = "relay"
    factory = RelayFactory


relay = Plugin()
