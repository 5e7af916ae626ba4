"""Health checks against real servers on the loopback interface."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from lbarray.backends.health import Seen
from lbarray.config.load import parse
from lbarray.config.pools import Check
from lbarray.plugin import IHealthProbeMaker, makers
from lbarray.testbed.certificates import write_certificate
from lbarray.values import BackendAddress

reactor: Any = global_reactor


class Scripted(Protocol):
    """Answers every reading with the same octets, or says nothing."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.asked += data
        if self.factory.answer:
            self.transport.write(self.factory.answer)
        else:
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)


class Server(Factory):
    """A back end."""

    protocol = Scripted
    noisy = False

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked = b""
        self.open: list[Scripted] = []


def answer(status: int, content: bytes = b"ok", *fields: bytes) -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(content), lines, content)


class ProbeTests(TestCase):
    """What each kind takes for well."""

    def serve(self, answer: bytes = b"", context: Any = None) -> Server:
        self.server = Server(answer)
        if context is None:
            port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        else:
            port = reactor.listenSSL(0, self.server, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        return self.server

    async def look(self, port: int | None = None, **settings: Any) -> Seen:
        """One look; afterwards nothing of it is left."""
        check = Check(**{"timeout": 2.0, **settings})
        probe = makers(IHealthProbeMaker)[check.kind].make(reactor, check)
        looking: Deferred[Seen] = probe.probe(BackendAddress("web", "w1", "127.0.0.1", port or self.port))
        seen = await looking
        for _ in range(100):
            if not self.server.open:
                break
            await deferLater(reactor, 0.01)
        self.assertEqual(self.server.open, [])
        return seen

    async def test_tcp(self) -> None:
        """Who takes a connection is well; who does not is not."""
        self.serve()
        self.assertEqual(await self.look(), Seen(True, "connected"))
        seen = await self.look(port=1)
        self.assertFalse(seen.passed)
        self.assertIn("refused", seen.said)

    async def test_another_port(self) -> None:
        """A check may ask an agent on a port of its own."""
        self.serve()
        check = Check(port=self.port)
        probe = makers(IHealthProbeMaker)["tcp"].make(reactor, check)
        seen: Seen = await probe.probe(BackendAddress("web", "w1", "127.0.0.1", 1))
        self.assertTrue(seen.passed)
        await deferLater(reactor, 0.05)

    async def test_http(self) -> None:
        """By status, with method, path, Host and further fields as configured."""
        server = self.serve(answer(200))
        seen = await self.look(kind="http", path="/health", host="a.example", send={"X-Probe": "1"})
        self.assertEqual(seen, Seen(True, "status 200"))
        self.assertTrue(server.asked.startswith(b"GET /health HTTP/1.1\r\nHost: a.example\r\n"))
        self.assertIn(b"\r\nX-Probe: 1\r\n", server.asked)
        server.answer = answer(500)
        self.assertEqual(await self.look(kind="http"), Seen(False, "status 500, wanted 200 to 399"))
        self.assertTrue((await self.look(kind="http", expect=(500, 500))).passed)

    async def test_http_fields_and_content(self) -> None:
        """What is wanted of fields and content must be there."""
        self.serve(answer(200, b"all systems go", b"X-Role: primary"))
        for settings, passed in (
            ({"expect_fields": {"x-role": "primary"}}, True),
            ({"expect_fields": {"X-Role": "~^prim"}}, True),
            ({"expect_fields": {"X-Role": "standby"}}, False),
            ({"expect_fields": {"X-None": "~."}}, False),
            ({"expect_body": "systems (go|fine)$"}, True),
            ({"expect_body": "stop"}, False),
        ):
            seen = await self.look(kind="http", **settings)
            self.assertEqual(seen.passed, passed, (settings, seen))

    async def test_proxy_protocol(self) -> None:
        """A back end that wants a PROXY header gets that of a connection which is nobody's."""
        server = self.serve(answer(200))
        self.assertTrue((await self.look(kind="http", proxy_protocol=1)).passed)
        self.assertTrue(server.asked.startswith(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"))
        server.asked = b""
        self.assertTrue((await self.look(kind="http", proxy_protocol=2)).passed)
        self.assertTrue(server.asked.startswith(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET "))
        server.asked = b""
        self.assertFalse((await self.look(kind="tls", proxy_protocol=1)).passed)
        self.assertTrue(server.asked.startswith(b"PROXY UNKNOWN\r\n\x16\x03"))

    async def test_http_nonsense(self) -> None:
        """What is no response, or none at all, is not well."""
        server = self.serve(b"SSH-2.0-x\r\n")
        self.assertIn("no HTTP response", (await self.look(kind="http")).said)
        server.answer = b""
        self.assertIn("closed the connection", (await self.look(kind="http")).said)

    async def test_silence(self) -> None:
        """A look has its time and no more; cancelled, it leaves nothing behind."""
        self.serve(b"HTTP/1.1 200 OK\r\nContent-Le")
        self.assertEqual(await self.look(kind="http", timeout=0.1), Seen(False, "no answer within 0.1 s"))
        probe = makers(IHealthProbeMaker)["http"].make(reactor, Check(kind="http"))
        looking = probe.probe(BackendAddress("web", "w1", "127.0.0.1", self.port))
        looking.addErrback(lambda _: None)
        looking.cancel()
        await deferLater(reactor, 0.05)

    async def test_tls(self) -> None:
        """A handshake, whatever the certificate; plain TCP is not enough."""
        folder = Path(self.mktemp())
        folder.mkdir()
        write_certificate(folder, "a.example", "127.0.0.1")
        context = DefaultOpenSSLContextFactory(
            str(folder / "site.key"), str(folder / "site.crt"), sslmethod=SSL.TLS_METHOD
        )
        self.serve(answer(200), context=context)
        self.assertEqual(await self.look(kind="tls", host="a.example"), Seen(True, "handshake"))
        self.assertEqual(await self.look(kind="http", tls=True), Seen(True, "status 200"))
        self.serve(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        seen = await self.look(kind="tls")
        self.assertFalse(seen.passed)
        self.assertIn("no handshake", seen.said)

    async def test_script(self) -> None:
        """The exit code says it; what the program says is shown; place and name are its arguments."""
        self.serve()
        program = "import sys; print('asked for', *sys.argv[1:]); sys.exit(int(sys.argv[2]) % 2)"
        command = (sys.executable, "-c", program)
        seen = await self.look(port=8080, kind="script", command=command)
        self.assertEqual(seen, Seen(True, "exit code 0: asked for 127.0.0.1 8080 web w1"))
        self.assertFalse((await self.look(port=8081, kind="script", command=command)).passed)
        seen = await self.look(kind="script", command=("/nothing/of/the/kind",))
        self.assertFalse(seen.passed)
        seen = await self.look(
            kind="script", command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout=0.2
        )
        self.assertEqual(seen, Seen(False, "not done within 0.2 s"))
        await deferLater(reactor, 0.1)

    def test_configured(self) -> None:
        """The keys of a check are read from the file."""
        config = parse(
            """
[services.http]
address = "127.0.0.1"
port = 80
[pools.web.backends]
w1 = { address = "192.0.2.1:80" }
[pools.web.check]
kind = "http"
expect = [200, 204]
expect_body = "ok"
expect_fields = { X-Role = "~primary" }
send = { X-Probe = "1" }
port = 8080
shared = true
"""
        )
        check = config.pools["web"].check
        assert check is not None
        self.assertEqual((check.expect, check.expect_fields, check.port), ((200, 204), {"X-Role": "~primary"}, 8080))
