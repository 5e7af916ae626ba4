"""The worker as a service: its services share what holds for all; changes and its end break nothing that has begun."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbarray.http.limits import Limits
from lbarray.telemetry.counters import Counters
from lbarray.testbed.authority import Authority
from lbarray.values import ServiceId
from lbarray.worker.served import ListenerSpec
from lbarray.worker.service import WorkerService
from lbarray.worker.tls.certificates import CertificateFiles
from lbarray.worker.tls.settings import TlsSettings
from tests.worker.engine import OK, BackendServer, Requests, answer

reactor: Any = global_reactor
ASK = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class ServiceTests(TestCase):
    """Two services, one of them over TLS."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.authority = Authority(folder)
        files = CertificateFiles(*self.authority.issue("a", "a.example"))
        self.backend = BackendServer(answer(OK))
        listening = reactor.listenTCP(0, self.backend, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.requests = Requests([listening.getHost().port])
        self.plain = self.spec("http")
        self.tls = self.spec("https", TlsSettings(files=(files,)))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean()))

    async def clean(self) -> None:
        for idle in self.requests.idle:
            idle.close_all()
        await deferLater(reactor, 0.02)
        for each in list(self.backend.open):
            each.transport.abortConnection()
        await deferLater(reactor, 0.02)

    def spec(self, name: str, tls: TlsSettings | None = None) -> ListenerSpec:
        return ListenerSpec(name=name, service_id=ServiceId("127.0.0.1", free_port()), tls=tls)  # type: ignore[arg-type]

    def serve(self, limits: Limits | None = None) -> WorkerService:
        worker = WorkerService(
            reactor=reactor,
            listeners=[self.plain, self.tls],
            requests=self.requests,
            filters=(),
            limits=limits or Limits(),
            counters=Counters(),
            stop_grace_s=5.0,
        )
        worker.startService()
        self.addCleanup(lambda: maybeDeferred(worker.stopService) if worker.running else None)
        return worker

    def connect(self, spec: ListenerSpec) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", spec.service_id.port), 5)
        self.addCleanup(client.close)
        return client

    async def test_connections_of_all_services(self) -> None:
        """A limit of the node holds for all its services together."""
        self.serve(Limits(max_connections=1))
        first = self.connect(self.plain)
        await deferToThread(_ask, first)
        refused = await deferToThread(lambda: _handshake(self.connect(self.tls), self.context(), lambda: None))
        self.assertEqual(refused, b"")

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority.path))

    def half_a_handshake(self, change: Callable[[], object]) -> Deferred[bytes]:
        """A client whose ClientHello is cut in two; in between ``change`` happens. What it was answered."""
        client = self.connect(self.tls)

        def changed() -> None:
            done: list[object] = []
            reactor.callFromThread(lambda: done.append(change()))
            while not done:
                time.sleep(0.001)

        found: Deferred[bytes] = deferToThread(_handshake, client, self.context(), changed)
        return found

    async def test_reconfigured_within_a_handshake(self) -> None:
        """A handshake that is in progress while the TLS settings of its service change is finished."""
        worker = self.serve()
        assert self.tls.tls is not None
        changed = attrs.evolve(self.tls, tls=attrs.evolve(self.tls.tls, handshakes_at_once=7))

        def change() -> None:
            worker.reconfigure(
                listeners=[self.plain, changed], filters=(), limits=Limits(), node_name="", stop_grace_s=5.0
            )

        self.assertIn(b"200", await self.half_a_handshake(change))
        self.assertIn(b"200", await self.half_a_handshake(lambda: None))

    async def test_stopped_within_a_handshake(self) -> None:
        """A client that was let in before the end is served: its handshake, and one request."""
        worker = self.serve()
        stopping: list[Deferred[Any]] = []

        def stop() -> None:
            stopping.append(maybeDeferred(worker.stopService))

        self.assertIn(b"200", await self.half_a_handshake(stop))
        await stopping[0]

    async def test_stopped_before_the_first_request(self) -> None:
        """A connection that has just come, or has begun to ask, is answered and then closed; one that has been answered
        ends at once."""
        worker = self.serve()
        new, asking, idle = (self.connect(self.plain) for _ in range(3))
        asking.sendall(ASK[:20])
        await deferToThread(_ask, idle)
        stopped = maybeDeferred(worker.stopService)
        self.assertEqual(await deferToThread(idle.recv, 4096), b"")
        for client, rest in ((new, ASK), (asking, ASK[20:])):
            client.sendall(rest)
            answered = await deferToThread(_all, client)
            self.assertIn(b"200 OK", answered)
            self.assertIn(b"connection: close", answered.lower())
        await stopped


def _ask(client: socket.socket) -> bytes:
    client.sendall(ASK)
    return client.recv(4096)


def _all(client: socket.socket) -> bytes:
    got = b""
    while data := client.recv(4096):
        got += data
    return got


def _handshake(client: socket.socket, context: ssl.SSLContext, between: Callable[[], object]) -> bytes:
    """Shake hands with a first flight in two parts and ask; nothing where the server closes. Blocks."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="a.example")
    first = True
    try:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flight = outgoing.read()
                if flight and first:
                    client.sendall(flight[:50])
                    between()
                    client.sendall(flight[50:])
                    first = False
                elif flight:
                    client.sendall(flight)
                data = client.recv(65536)
                if not data:
                    return b""
                incoming.write(data)
        tls.write(ASK)
        client.sendall(outgoing.read())
        while True:
            try:
                return tls.read(4096)
            except ssl.SSLWantReadError:
                data = client.recv(65536)
                if not data:
                    return b""
                incoming.write(data)
    except (ssl.SSLError, OSError):
        return b""
