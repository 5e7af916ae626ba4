"""TLS of a worker between real sockets: names, kinds of certificates, clients' certificates, reloads, limits."""

from __future__ import annotations

import gc
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbarray.errors import SystemRefused
from lbarray.telemetry.counters import Counters
from lbarray.testbed.authority import Authority
from lbarray.values import TlsSession
from lbarray.worker.listeners import StreamPort, listening_socket
from lbarray.worker.stream import Stream
from lbarray.worker.tls.acceptor import TlsAcceptor
from lbarray.worker.tls.certificates import CertificateFiles
from lbarray.worker.tls.contexts import ClientCertificates, Policy
from lbarray.worker.tls.limiter import HandshakeLimiter
from lbarray.worker.tls.store import TICKET_KEY_S, CertificateStore

reactor: Any = global_reactor
INTERMEDIATE = Policy()


class Says(Protocol):
    """Echoes, and remembers what its transport knew at the beginning."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.met.append((self.transport.negotiatedProtocol, self.transport.client_fields))
        self.factory.sessions.append(self.transport.tls_session)
        self.factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)
        if data == b"bye":
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)


class Breaks(Protocol):
    """Cannot even begin."""

    def connectionMade(self) -> None:
        raise RuntimeError("as it begins")


class Server(Factory):
    """Of these."""

    protocol = Says
    noisy = False

    def __init__(self) -> None:
        self.met: list[tuple[bytes | None, bytes]] = []
        self.open: list[Says] = []
        self.sessions: list[TlsSession | None] = []


class TlsCase(TestCase):
    """A service with certificates of an authority of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)
        self.counters = Counters()
        self.server = Server()
        self.port: StreamPort | None = None
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean()))

    async def clean(self) -> None:
        if self.port is not None:
            self.acceptor.stop()
            self.port.stopListening()
        await deferLater(reactor, 0.01)
        for each in list(self.server.open):
            each.transport.abortConnection()
        await deferLater(reactor, 0.01)

    def files(self, stem: str, *names: str, kind: str = "ecdsa", days: float = 30.0) -> CertificateFiles:
        return CertificateFiles(*self.authority.issue(stem, *names, kind=kind, days=days))

    def serve(
        self,
        *files: CertificateFiles,
        policy: Policy = INTERMEDIATE,
        strict: bool = False,
        at_once: int = 0,
        timeout_s: float = 5.0,
    ) -> CertificateStore:
        store = CertificateStore(service="https", files=files, policy=policy, strict=strict, counters=self.counters)
        store.load()
        self.acceptor = TlsAcceptor(
            reactor=reactor,
            factory=self.server,
            store=store,
            limiter=HandshakeLimiter(at_once=at_once),
            timeout_s=timeout_s,
            asks_clients=policy.clients.mode != "off",
            counters=self.counters,
            tells_sessions=policy.tells_sessions,
        )
        self.port = StreamPort(
            reactor=reactor,
            listener=listening_socket("127.0.0.1", 0),
            factory=self.server,
            counters=self.counters,
        )
        self.port.begin = self.acceptor.begin
        self.port.startListening()
        return store

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def ask(
        self, name: str = "a.example", context: ssl.SSLContext | None = None, session: Any = None
    ) -> dict[str, Any]:
        """Connect, have something echoed, and leave; what was seen, or ``refused``."""
        assert self.port is not None
        place = ("127.0.0.1", self.port.getHost().port)
        context = context or self.context()

        def talk() -> dict[str, Any]:
            try:
                with (
                    socket.create_connection(place, 5) as plain,
                    context.wrap_socket(plain, server_hostname=name, session=session) as tls,
                ):
                    tls.sendall(b"hello")
                    if tls.recv(100) != b"hello":
                        return {"refused": "closed"}
                    peer: Any = tls.getpeercert() or {}
                    subject = dict(each[0] for each in peer.get("subject", ()))
                    seen = {
                        "cn": subject.get("commonName"),
                        "version": tls.version(),
                        "alpn": tls.selected_alpn_protocol(),
                        "cipher": (tls.cipher() or ("",))[0],
                        "session": tls.session,
                    }
                    tls.sendall(b"bye")
                    tls.recv(100)
                    return seen
            except (ssl.SSLError, OSError) as error:
                return {"refused": str(error)}

        seen: dict[str, Any] = await deferToThread(talk)
        return seen


class ServiceTests(TlsCase):
    """What clients meet."""

    async def test_by_name(self) -> None:
        """The certificate for the name; the first one for other names; ALPN as agreed."""
        self.serve(self.files("a", "a.example"), self.files("b", "*.b.example"))
        self.assertEqual((await self.ask("a.example"))["cn"], "a.example")
        seen = await self.ask("www.b.example")
        self.assertEqual((seen["cn"], seen["alpn"], seen["version"]), ("*.b.example", "http/1.1", "TLSv1.3"))
        context = self.context()
        context.check_hostname = False
        self.assertEqual((await self.ask("c.example", context))["cn"], "a.example")
        self.assertEqual(self.server.met[0], (b"http/1.1", b""))

    async def test_strict(self) -> None:
        """Strict: an unknown name is refused by ``unrecognized_name``, and counted."""
        self.serve(self.files("a", "a.example"), strict=True)
        self.assertIn("UNRECOGNIZED_NAME", (await self.ask("c.example"))["refused"])
        self.assertEqual(self.counters.get("tls_refused", "unknown_name"), 1)
        self.assertEqual((await self.ask("a.example"))["cn"], "a.example")

    async def test_two_kinds_for_a_name(self) -> None:
        """A client that knows only RSA signatures gets the RSA certificate, the others ECDSA."""
        self.serve(self.files("e", "a.example"), self.files("r", "a.example", kind="rsa"))
        for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"):
            context = self.context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(cipher)
            self.assertEqual((await self.ask("a.example", context))["cipher"], cipher)

    async def test_sessions_are_told(self) -> None:
        """A protocol learns of its client's session where that is wanted, also after the keys of tickets changed, and
        of nothing elsewhere."""
        store = self.serve(self.files("a", "a.example"), policy=Policy(tells_sessions=True))
        context = self.context()
        seen = await self.ask(context=context)
        store._load_front()
        gc.collect()
        await self.ask(context=context, session=seen["session"])
        first, again = self.server.sessions
        assert first is not None and again is not None
        self.assertEqual(first.presented, ())
        self.assertTrue(set(first.issued) & set(again.presented))
        await self.clean()
        self.serve(self.files("b", "a.example"))
        await self.ask()
        self.assertIsNone(self.server.sessions[-1])

    async def test_profiles(self) -> None:
        """Intermediate takes TLS 1.2, modern does not; nobody takes 1.1 or a cipher without forward secrecy."""
        old = self.context()
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        weak = self.context()
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("AES128-GCM-SHA256")
        self.serve(self.files("a", "a.example"))
        self.assertEqual((await self.ask(context=old))["version"], "TLSv1.2")
        self.assertIn("refused", await self.ask(context=weak))
        assert self.port is not None
        self.port.stopListening()
        self.serve(self.files("a", "a.example"), policy=Policy(profile="modern"))
        self.assertIn("refused", await self.ask(context=old))
        self.assertEqual((await self.ask())["version"], "TLSv1.3")

    async def test_client_certificates(self) -> None:
        """Optional: who shows a good one is told of, who shows none is served, who shows a bad one is not."""
        clients = ClientCertificates("optional", self.authority.path)
        self.serve(self.files("a", "a.example"), policy=Policy(clients=clients))
        good = self.context()
        good.load_cert_chain(*self.authority.issue("client", "alice"))
        bad = self.context()
        bad.load_cert_chain(*Authority(self.folder, "Other").issue("mallory", "alice"))
        self.assertEqual((await self.ask(context=good))["cn"], "a.example")
        self.assertTrue(self.server.met[-1][1].startswith(b"Client-Cert: :MII"))
        self.assertTrue(self.server.met[-1][1].endswith(b":\r\n"))
        self.assertEqual((await self.ask())["cn"], "a.example")
        self.assertEqual(self.server.met[-1][1], b"")
        self.assertIn("refused", await self.ask(context=bad))

    async def test_client_certificates_required(self) -> None:
        """Required: nobody without."""
        self.serve(
            self.files("a", "a.example"), policy=Policy(clients=ClientCertificates("required", self.authority.path))
        )
        self.assertIn("refused", await self.ask())
        good = self.context()
        good.load_cert_chain(*self.authority.issue("client", "alice"))
        self.assertEqual((await self.ask(context=good))["cn"], "a.example")

    async def test_staple(self) -> None:
        """A good response is stapled for those who ask; one that is stale, or says revoked, is not."""
        files = self.files("a", "a.example")
        store = self.serve(CertificateFiles(files.certificate, files.key, self.folder / "a.ocsp"))
        self.assertEqual(await self.stapled(), b"")
        path = self.authority.ocsp("a")
        store.refresh()
        self.assertEqual(await self.stapled(), path.read_bytes())
        self.authority.ocsp("a", hours=-1.0)
        store.refresh()
        self.assertEqual(await self.stapled(), b"")
        self.authority.ocsp("a", good=False)
        store.refresh()
        self.assertEqual(await self.stapled(), b"")

    async def stapled(self) -> bytes:
        """What a client that asks for an OCSP response gets."""
        assert self.port is not None
        place = ("127.0.0.1", self.port.getHost().port)
        got: list[bytes] = []

        def take(connection: SSL.Connection, octets: bytes, data: object) -> bool:
            got.append(octets)
            return True

        def talk() -> None:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_ocsp_client_callback(take)
            with socket.create_connection(place, 5) as plain:
                plain.settimeout(None)
                connection = SSL.Connection(context, plain)
                connection.request_ocsp()
                connection.set_connect_state()
                connection.do_handshake()

        await deferToThread(talk)
        return got[0]

    # Reloads

    async def test_reload(self) -> None:
        """A changed file is used for new connections; sessions and open connections live on."""
        store = self.serve(self.files("a", "a.example"))
        self.assertFalse(store.refresh())
        context = self.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = await deferToThread(self.session, context, None)
        before = store.certificates[0].leaf.serial_number
        self.authority.issue("a", "a.example")
        self.assertTrue(store.refresh())
        self.assertNotEqual(store.certificates[0].leaf.serial_number, before)
        await self.ask()
        self.assertTrue((await deferToThread(self.session, context, session)) is True)
        self.assertEqual(self.counters.get("certificate_reloads", "done"), 1)

    def session(self, context: ssl.SSLContext, session: Any) -> Any:
        """A new connection's session; given one, whether it was taken up again."""
        assert self.port is not None
        with (
            socket.create_connection(("127.0.0.1", self.port.getHost().port), 5) as plain,
            context.wrap_socket(plain, server_hostname="a.example", session=session) as tls,
        ):
            tls.sendall(b"x")
            tls.recv(1)
            return tls.session_reused if session else tls.session

    async def test_ticket_keys_change(self) -> None:
        """After a day sessions are made with another key, and old ones no longer taken up."""
        store = self.serve(self.files("a", "a.example"))
        context = self.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = await deferToThread(self.session, context, None)
        store.refresh()
        self.assertTrue(await deferToThread(self.session, context, session))
        later = time.time() + TICKET_KEY_S + 1.0
        store._now = lambda: later
        store.refresh()
        self.assertFalse(await deferToThread(self.session, context, session))

    async def test_protocol_that_breaks(self) -> None:
        """A protocol that fails as it begins costs its own connection; nothing of it stays behind."""
        self.serve(self.files("a", "a.example"))
        build, broken = self.server.buildProtocol, [Breaks()]
        self.server.buildProtocol = lambda addr: broken.pop() if broken else build(addr)  # type: ignore[method-assign]
        self.assertIn("refused", await self.ask())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual([each for each in reactor.getReaders() if isinstance(each, Stream)], [])
        self.assertEqual((await self.ask())["cn"], "a.example")

    async def test_bad_reload(self) -> None:
        """What cannot be used is told once, and changes nothing."""
        store = self.serve(self.files("a", "a.example"))
        (self.folder / "a.crt").write_text("half a certif")
        self.assertFalse(store.refresh())
        self.assertFalse(store.refresh())
        self.assertEqual(self.counters.get("certificate_reloads", "failed"), 1)
        self.assertEqual((await self.ask())["cn"], "a.example")

    def test_what_cannot_be_used(self) -> None:
        """A missing file, no PEM, a foreign key: refused with the file's name and the configuration's key."""
        a, b = self.files("a", "a.example"), self.files("b", "b.example")
        (self.folder / "empty.pem").write_text("nothing")
        for files, said in (
            (CertificateFiles(self.folder / "no.crt", a.key), "read the certificate"),
            (CertificateFiles(self.folder / "empty.pem", a.key), "no certificate in PEM"),
            (CertificateFiles(a.certificate), "no private key in PEM"),
            (CertificateFiles(a.certificate, b.key), "belongs to another certificate"),
        ):
            with self.assertRaises(SystemRefused) as raised:
                self.serve(files)
            self.assertIn(said, str(raised.exception))
            self.assertIn("services.https.tls", str(raised.exception))

    def test_key_in_the_same_file(self) -> None:
        """Certificate and key may be one file."""
        files = self.files("a", "a.example")
        assert files.key is not None
        both = self.folder / "both.pem"
        both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
        self.serve(CertificateFiles(both))

    def test_expiry(self) -> None:
        """The status says for how long each certificate is good."""
        store = self.serve(self.files("a", "a.example", days=3.5))
        shown = store.status()[0]
        self.assertEqual((shown["names"], shown["days_left"]), (["a.example"], 3.5))

    # Limits

    async def test_handshake_timeout(self) -> None:
        """A client that says nothing is let go, and counted."""
        self.serve(self.files("a", "a.example"), timeout_s=0.0)
        assert self.port is not None
        silent = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
        self.addCleanup(silent.close)
        while not self.acceptor.shaking:
            await deferLater(reactor, 0.005)
        self.acceptor.sweep()
        self.assertEqual(self.acceptor.shaking, {})
        self.assertEqual(self.counters.get("tls_handshake_failed", "timed_out"), 1)

    async def test_at_once(self) -> None:
        """One address shakes no more hands at once than it may."""
        self.serve(self.files("a", "a.example"), at_once=1)
        assert self.port is not None
        silent = socket.create_connection(("127.0.0.1", self.port.getHost().port), 5)
        self.addCleanup(silent.close)
        while not self.acceptor.shaking:
            await deferLater(reactor, 0.005)
        self.assertIn("refused", await self.ask())
        self.assertEqual(self.counters.get("tls_refused", "too_many_at_once"), 1)
        silent.close()
        while self.acceptor.shaking:
            await deferLater(reactor, 0.005)
        self.assertEqual((await self.ask())["cn"], "a.example")

    async def test_what_is_no_tls(self) -> None:
        """HTTP on a TLS port ends the connection and is counted by its reason."""
        self.serve(self.files("a", "a.example"))
        assert self.port is not None
        with socket.create_connection(("127.0.0.1", self.port.getHost().port), 5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
            while not self.counters.total("tls_handshake_failed"):
                await deferLater(reactor, 0.005)
        self.assertEqual(list(self.counters.by_label("tls_handshake_failed")), ["http_request"])

    async def test_large_both_ways(self) -> None:
        """Megabytes pass in both directions at once, in order."""
        self.serve(self.files("a", "a.example"))
        assert self.port is not None
        place = ("127.0.0.1", self.port.getHost().port)
        sent = bytes(range(256)) * 16384

        def talk() -> bytes:
            with (
                socket.create_connection(place, 5) as plain,
                self.context().wrap_socket(plain, server_hostname="a.example") as tls,
            ):
                got = b""
                for at in range(0, len(sent), 1 << 18):
                    tls.sendall(sent[at : at + (1 << 18)])
                    while len(got) < at:
                        got += tls.recv(1 << 18)
                while len(got) < len(sent):
                    got += tls.recv(1 << 18)
                return got

        self.assertTrue(await deferToThread(talk) == sent)
