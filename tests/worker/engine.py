"""A worker between real sockets: scripted back ends, clients of plain octets."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import ClientCreator, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from lbarray.backends.connections import IdleConnections
from lbarray.errors import BadInput
from lbarray.http.events import OwnAnswer, RequestHead, ResponseHead
from lbarray.http.limits import Limits
from lbarray.interfaces import IRequestScheduler
from lbarray.telemetry.counters import Counters
from lbarray.values import BackendAddress, ClientAddress, Handling, Outcome, ServiceId
from lbarray.worker.factory import ClientFactory
from lbarray.worker.listeners import StreamPort, listening_socket

reactor: Any = global_reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@implementer(IHalfCloseableProtocol)
class Backend(Protocol):
    """Hands what it reads to the test's script; ``asked`` remembers everything."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.on_end: Callable[[], object] = lambda: None
        self.factory.open.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.asked += data
        self.factory.script(self, data)

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.open.remove(self)
        self.factory.lost += 1

    def readConnectionLost(self) -> None:
        """The worker sends no more: ``on_end`` if the script set it, then the end."""
        self.on_end()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Not of interest."""


class BackendServer(Factory):
    """A back end that does what a test says."""

    protocol = Backend
    noisy = False

    def __init__(self, script: Callable[[Backend, bytes], None]) -> None:
        self.script = script
        self.asked = b""
        self.open: list[Backend] = []
        self.lost = 0


class Assigned:
    """An assignment to one of several places, with a store of connections for each."""

    def __init__(self, requests: Requests, place: int) -> None:
        self.requests = requests
        self.place = place
        self.backend = BackendAddress("web", f"w{place}", "127.0.0.1", requests.ports[place])
        self.answer = requests.answer
        self.waiting = requests.waiting
        self.target: bytes | None = requests.target
        self.handling = requests.handling
        self.mirrors = tuple(Assigned(requests, mirror) for mirror in requests.mirrors if place == 0)
        requests.places.append(place)

    def wait(self, ready: Callable[[BadInput | None], None]) -> None:
        def end(error: BadInput | None) -> None:
            self.waiting = False
            ready(error)

        self.requests.queue.append(end)

    def responded(self, response: ResponseHead) -> None:
        response.fields.extend(self.requests.fields)

    def idle_connection(self) -> Any:
        return self.requests.idle[self.place].take()

    def keep_connection(self, connection: Any) -> None:
        self.requests.idle[self.place].store(connection, 0.0)

    def forget_connection(self, connection: Any) -> None:
        self.requests.idle[self.place].forget(connection)

    def finished(self, outcome: Outcome) -> None:
        self.requests.outcomes.append(outcome)

    def another(self, unsent: bool = False) -> Assigned | None:
        return Assigned(self.requests, self.place + 1) if self.place + 1 < len(self.requests.ports) else None


class Refused(BadInput):
    """What a scheduler says when it has nobody."""

    reason = "no_backend"
    status = 503
    answer_fields = ((b"Retry-After", b"1"),)


@implementer(IRequestScheduler)
class Requests:
    """Gives every request to the first place."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.idle = [IdleConnections(max_idle=9, idle_timeout_s=9) for _ in ports]
        self.fields: tuple[tuple[bytes, bytes], ...] = ()
        self.answer: OwnAnswer | None = None
        self.waiting = False
        self.target: bytes | None = None
        self.handling = Handling(route="*/")
        self.mirrors: tuple[int, ...] = ()
        self.queue: list[Callable[[BadInput | None], None]] = []
        self.heads: list[RequestHead] = []
        self.places: list[int] = []
        self.outcomes: list[Outcome] = []

    def assign(self, service: ServiceId, request: RequestHead, client: ClientAddress) -> Assigned:
        self.heads.append(request)
        if not self.ports:
            raise Refused("nobody")
        return Assigned(self, 0)


@implementer(IHalfCloseableProtocol)
class Client(Protocol):
    """Reads until told otherwise; knows that one side may close before the other."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.closed = False
        self.reason = ""
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        self._look()

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True
        self.reason = reason.type.__name__
        self._look()

    def readConnectionLost(self) -> None:
        """The other side sends no more; we may."""
        self.closed = True
        self._look()

    def writeConnectionLost(self) -> None:
        """Not of interest."""

    def _look(self) -> None:
        for each in list(self._waiting):
            if each[0]():
                self._waiting.remove(each)
                each[1].callback(None)

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        """Fires when the condition holds."""
        done: Deferred[None] = Deferred()
        self._waiting.append((condition, done))
        self._look()
        return done.addTimeout(5, reactor)


def closed_port(case: TestCase) -> int:
    """A port that nobody listens at, and nobody else gets during the test: no listener of its own either."""
    kept = socket.socket()
    case.addCleanup(kept.close)
    kept.bind(("127.0.0.1", 0))
    return int(kept.getsockname()[1])


def answer(octets: bytes) -> Callable[[Backend, bytes], None]:
    """A script that answers each complete head so."""

    def script(backend: Backend, data: bytes) -> None:
        for _ in range(data.count(b"\r\n\r\n")):
            backend.transport.write(octets)

    return script


class Engine(TestCase):
    """Mix in: a worker that is started by ``serve``, and clients that ``connect`` to it."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.servers: list[BackendServer] = []
        self.listening: list[Any] = []
        self.requests = Requests([])
        self.clients: list[Client] = []
        self.limits = Limits(max_head=2048, max_body=100_000, connect_timeout_s=1.0)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean()))

    async def clean(self) -> None:
        for client in self.clients:
            client.transport.abortConnection()
        for idle in self.requests.idle:
            idle.close_all()
        for listening in self.listening:
            await listening.stopListening()
        await deferLater(reactor, 0.01)
        for server in self.servers:
            for backend in list(server.open):
                backend.transport.abortConnection()
        await deferLater(reactor, 0.01)

    def serve(self, *scripts: Callable[[Backend, bytes], None]) -> None:
        """Back ends with these scripts, the worker in front."""
        ports = []
        for script in scripts:
            server = BackendServer(script)
            self.servers.append(server)
            self.listening.append(reactor.listenTCP(0, server, interface="127.0.0.1"))
            ports.append(self.listening[-1].getHost().port)
        self.start(ports)

    #: What makes the factory of the service.
    make_factory: Any = ClientFactory

    def start(self, ports: list[int], filters: tuple[Any, ...] = ()) -> None:
        self.requests = Requests(ports)
        self.factory: Any = self.make_factory(
            reactor=reactor,
            service_id=ServiceId("127.0.0.1", 80),  # type: ignore[arg-type]  # not looked at here
            tls=False,
            requests=self.requests,
            filters=filters,
            limits=self.limits,
            counters=self.counters,
        )
        self.worker = StreamPort(
            reactor=reactor,
            listener=listening_socket("127.0.0.1", 0),
            factory=self.factory,
            counters=self.factory.counters,
        )
        self.worker.startListening()
        self.listening.append(self.worker)

    async def connect(self) -> Client:
        client: Client = await ClientCreator(reactor, Client).connectTCP("127.0.0.1", self.worker.getHost().port)
        self.clients.append(client)
        return client

    async def ask(self, octets: bytes, wanted: int = 1, client: Client | None = None) -> Client:
        """Send and wait until so many responses have ended with "hi", or the connection has."""
        client = client or await self.connect()
        client.transport.write(octets)
        await client.until(lambda: client.got.count(b"hi") >= wanted or client.closed)
        return client

    def get(self, path: bytes = b"/", *more: bytes, method: bytes = b"GET") -> bytes:
        return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: a.example", *more, b"", b""])
