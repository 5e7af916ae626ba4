"""Connections to back ends: refused, late, over TLS, with a PROXY header."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lbarray.telemetry.counters import Counters
from lbarray.testbed.authority import Authority
from lbarray.values import BackendAddress, ClientAddress, ServiceId
from lbarray.worker.connector import Connector
from lbarray.worker.listeners import StreamPort, listening_socket
from lbarray.worker.preamble import PreambleAcceptor
from lbarray.worker.tls.acceptor import TlsAcceptor
from lbarray.worker.tls.backend import BackendTls, BackendTlsSettings
from lbarray.worker.tls.certificates import CertificateFiles
from lbarray.worker.tls.contexts import ClientCertificates, Policy
from lbarray.worker.tls.limiter import HandshakeLimiter
from lbarray.worker.tls.store import CertificateStore
from tests.worker.tls.test_service import Server

reactor: Any = global_reactor
NO_CLIENTS = ClientCertificates()
SERVICE = ServiceId(ip_address("192.0.2.100"), 443)


class Asks(Protocol):
    """Asks once, remembers the answer."""

    transport: Any
    got = b""

    def connectionMade(self) -> None:
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        self.got += data


class Waits(ClientFactory):
    """For one connection."""

    noisy = False

    def __init__(self) -> None:
        self.asks: Asks | None = None
        self.failed = ""

    def buildProtocol(self, addr: Any) -> Asks:
        self.asks = Asks()
        return self.asks

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failed = reason.getErrorMessage() or reason.type.__name__


class ConnectorTests(TestCase):
    """Towards the back ends."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.counters = Counters()
        self.server = Server()
        self.ports: list[StreamPort] = []
        self.made: list[Waits] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean()))

    async def clean(self) -> None:
        for port in self.ports:
            port.stopListening()
        for each in self.made:
            if each.asks is not None and each.asks.transport is not None:
                each.asks.transport.abortConnection()
        await deferLater(reactor, 0.02)
        for server in list(self.server.open):
            server.transport.abortConnection()
        await deferLater(reactor, 0.01)

    def listen(self) -> StreamPort:
        port = StreamPort(
            reactor=reactor, listener=listening_socket("127.0.0.1", 0), factory=self.server, counters=self.counters
        )
        self.ports.append(port)
        port.startListening()
        return port

    def listen_tls(self, *names: str, clients: ClientCertificates = NO_CLIENTS) -> StreamPort:
        port = self.listen()
        store = CertificateStore(
            service="back end",
            files=[CertificateFiles(*self.authority.issue("server", *names))],
            policy=Policy(clients=clients),
            strict=False,
            counters=self.counters,
        )
        store.load()
        self.acceptor = TlsAcceptor(
            reactor=reactor,
            factory=self.server,
            store=store,
            limiter=HandshakeLimiter(at_once=0),
            timeout_s=5.0,
            asks_clients=clients.mode != "off",
            counters=self.counters,
        )
        port.begin = self.acceptor.begin
        return port

    async def connect(self, port: int, connector: Connector, client: Any = None, host: str = "127.0.0.1") -> Waits:
        """Connect and have an answer, or the reason why not."""
        waits = Waits()
        self.made.append(waits)
        connector.connect(BackendAddress("web", "w1", host, port), waits, 5.0, client, SERVICE)
        while not waits.failed and not (waits.asks and waits.asks.got):
            await deferLater(reactor, 0.005)
        return waits

    def tls(self, **settings: Any) -> Connector:
        settings = {"ca": self.authority.path, **settings}
        tls = BackendTls(BackendTlsSettings(key_path="pools.web.tls", **settings))
        return Connector(reactor=reactor, counters=self.counters, tls={"web": tls})

    def plain(self, version: int = 0) -> Connector:
        return Connector(reactor=reactor, counters=self.counters, proxy_protocol={"web": version} if version else {})

    async def test_plain(self) -> None:
        """By address and by name."""
        port = self.listen().getHost().port
        for host in ("127.0.0.1", "localhost"):
            waits = await self.connect(port, self.plain(), host=host)
            assert waits.asks is not None
            self.assertEqual(waits.asks.got, b"hello")

    async def test_refused(self) -> None:
        """Nobody listens: told later, once, with the reason."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        waits = await self.connect(port, self.plain())
        self.assertIn("refused", waits.failed.lower())

    async def test_no_such_name(self) -> None:
        """A name without an address fails like a back end that refuses."""
        waits = await self.connect(80, self.plain(), host="nobody.invalid")
        self.assertIn("nobody.invalid", waits.failed)

    async def test_verified(self) -> None:
        """The right name of the right authority, by address or as configured."""
        port = self.listen_tls("web.internal", "127.0.0.1").getHost().port
        for connector in (self.tls(), self.tls(name="web.internal")):
            waits = await self.connect(port, connector)
            assert waits.asks is not None, waits.failed
            self.assertEqual(waits.asks.got, b"hello")

    async def test_wrong_name(self) -> None:
        """A good certificate of somebody else is no good."""
        port = self.listen_tls("other.internal").getHost().port
        waits = await self.connect(port, self.tls(name="web.internal"))
        self.assertEqual(waits.failed, waits.failed or "")
        self.assertEqual(self.counters.get("backend_tls_failed", "wrong_name"), 1)
        self.assertIsNone(waits.asks)

    async def test_wrong_authority(self) -> None:
        """A certificate that anybody could have made is no good, unless verification is off."""
        port = self.listen_tls("web.internal").getHost().port
        other = Authority(self.folder, "Other").path
        waits = await self.connect(port, self.tls(name="web.internal", ca=other))
        self.assertEqual(self.counters.get("backend_tls_failed", "certificate_verify_failed"), 1)
        waits = await self.connect(port, self.tls(name="web.internal", ca=other, verify=False))
        assert waits.asks is not None
        self.assertEqual(waits.asks.got, b"hello")

    async def test_our_certificate(self) -> None:
        """We show ours to back ends that want one."""
        clients = ClientCertificates("required", self.authority.path)
        port = self.listen_tls("127.0.0.1", clients=clients).getHost().port
        certificate, key = self.authority.issue("ours", "lbarray")
        waits = await self.connect(port, self.tls(certificate=certificate, key=key))
        assert waits.asks is not None, waits.failed
        self.assertIn(b"Client-Cert", self.server.met[-1][1])

    async def test_sessions(self) -> None:
        """The second connection takes up the session of the first."""
        port = self.listen_tls("127.0.0.1").getHost().port
        connector = self.tls()
        for _ in range(2):
            waits = await self.connect(port, connector)
            assert waits.asks is not None
            waits.asks.transport.loseConnection()
            await deferLater(reactor, 0.02)
        self.assertEqual((self.acceptor.full, self.acceptor.resumed), (1, 1))

    async def test_late(self) -> None:
        """A back end that never ends its handshake has its time."""
        port = self.listen().getHost().port
        waits = Waits()
        self.made.append(waits)
        self.tls().connect(BackendAddress("web", "w1", "127.0.0.1", port), waits, 0.05)
        while not waits.failed:
            await deferLater(reactor, 0.005)
        self.assertIsNone(waits.asks)

    async def test_proxy_header(self) -> None:
        """A back end behind us, as trusting as we are, learns who the client is; TLS or not, either version."""

        for version in (1, 2):
            port = self.listen()
            peers: list[Any] = []

            def remember(sock: socket.socket, peer: Any, port: StreamPort = port, peers: list[Any] = peers) -> None:
                peers.append(peer)
                port.begin_plain(sock, peer)

            preamble = PreambleAcceptor(
                reactor=reactor,
                trusted=[_network("127.0.0.0/8")],
                begin=remember,
                timeout_s=5.0,
                counters=self.counters,
            )
            port.begin = preamble.begin
            waits = await self.connect(port.getHost().port, self.plain(version), ClientAddress("192.0.2.7", 4000))
            assert waits.asks is not None
            self.assertEqual(waits.asks.got, b"hello")
            self.assertEqual(peers, [IPv4Address("TCP", "192.0.2.7", 4000)])

    async def test_proxy_header_of_strangers(self) -> None:
        """Who is not trusted is a client: what it sends is not looked at, whatever it looks like."""
        port = self.listen()
        preamble = PreambleAcceptor(
            reactor=reactor,
            trusted=[_network("10.0.0.0/8")],
            begin=port.begin_plain,
            timeout_s=5.0,
            counters=self.counters,
        )
        port.begin = preamble.begin
        waits = await self.connect(port.getHost().port, self.plain(2))
        assert waits.asks is not None
        self.assertTrue(waits.asks.got.startswith(b"\r\n\r\n\0\r\nQUIT\n"))

    async def test_no_proxy_header(self) -> None:
        """A trusted proxy that sends none is refused and counted."""
        port = self.listen()
        preamble = PreambleAcceptor(
            reactor=reactor,
            trusted=[_network("127.0.0.1/32")],
            begin=port.begin_plain,
            timeout_s=0.0,
            counters=self.counters,
        )
        port.begin = preamble.begin
        waits = Waits()
        self.made.append(waits)
        self.plain().connect(BackendAddress("web", "w1", "127.0.0.1", port.getHost().port), waits, 5.0)
        while not self.counters.total("proxy_header_refused"):
            await deferLater(reactor, 0.005)
        self.assertEqual(self.counters.by_label("proxy_header_refused"), {"no_signature": 1})


def _network(text: str) -> Any:
    return ip_network(text)
