"""WebSocket and other upgrades: the two connections become one."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from lbarray.values import Outcome
from tests.worker.engine import OK, Backend, Client, Engine, answer

reactor: Any = global_reactor
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x")
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n"
)


def echo(backend: Backend, data: bytes) -> None:
    """Switches, and then says everything back in capitals."""
    backend.transport.write(SWITCH + b"hello" if data.startswith(b"GET") else data.upper())


class TunnelTests(Engine):
    """One upgraded connection."""

    async def switched(self, more: bytes = b"") -> Client:
        client = await self.connect()
        client.transport.write(self.get(b"/chat", *UPGRADE) + more)
        await client.until(lambda: b"\r\n\r\n" in client.got)
        return client

    async def test_both_ways(self) -> None:
        """What either side says reaches the other, from the first octet on."""
        self.serve(echo)
        client = await self.switched(b"early ")
        await client.until(lambda: client.got.endswith(b"helloEARLY "))
        client.transport.write(b"late")
        await client.until(lambda: client.got.endswith(b"LATE"))
        self.assertTrue(client.got.startswith(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: y\r\n"))
        self.assertIn(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", self.servers[0].asked)
        self.assertEqual(self.factory.tunnels, 1)

    async def test_not_switched(self) -> None:
        """A back end that answers instead: the connection stays HTTP, with the requests behind."""
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(self.get(b"/chat", *UPGRADE) + self.get(b"/next"))
        await client.until(lambda: client.got.count(b"hi") == 2)
        self.assertEqual([head.target for head in self.requests.heads], [b"/chat", b"/next"])

    async def test_not_allowed(self) -> None:
        """A protocol that the service does not list is not asked for."""
        self.serve(answer(OK))
        await self.ask(self.get(b"/", b"Connection: Upgrade", b"Upgrade: spdy/3.1"))
        self.assertNotIn(b"Upgrade", self.servers[0].asked)

    async def test_switched_unasked(self) -> None:
        """A back end that switches without having been asked is broken: 502."""
        self.serve(answer(SWITCH))
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: client.got.startswith(b"HTTP/1.1 502"))

    async def test_client_ends_first(self) -> None:
        """The client's end is passed on; what the back end still has to say arrives."""

        def script(backend: Backend, data: bytes) -> None:
            if data.startswith(b"GET"):
                backend.transport.write(SWITCH)
                backend.on_end = lambda: backend.transport.write(b"bye")

        self.serve(script)
        client = await self.switched()
        client.transport.loseWriteConnection()
        await client.until(lambda: client.got.endswith(b"bye"))

    async def test_back_end_ends_first(self) -> None:
        """The back end's end is passed on; what the client still has to say arrives."""

        def script(backend: Backend, data: bytes) -> None:
            if data.startswith(b"GET"):
                backend.transport.write(SWITCH)
                backend.transport.loseWriteConnection()

        self.serve(script)
        client = await self.switched()
        await client.until(lambda: client.closed)
        client.transport.write(b"last words")
        while not self.servers[0].asked.endswith(b"last words"):
            await deferLater(reactor, 0.01)

    async def test_end(self) -> None:
        """When both have ended nothing is left, and the request counts as answered."""
        self.serve(echo)
        client = await self.switched()
        client.transport.loseConnection()
        while self.servers[0].open or self.factory.connections:
            await deferLater(reactor, 0.01)
        self.assertEqual(self.factory.tunnels, 0)
        self.assertEqual(self.requests.outcomes, [Outcome.ANSWERED])

    async def test_silence(self) -> None:
        """A tunnel in which nobody has spoken for too long is closed on both sides."""
        self.serve(echo)
        client = await self.switched()
        for connection in self.factory.connections:
            connection.deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: client.closed)
        self.assertEqual(self.counters.get("timeouts", "tunnel"), 1)

    async def test_pace(self) -> None:
        """A client that does not read stops the back end of its tunnel."""
        client: Client
        sent = 0

        class Endless:
            def __init__(self, backend: Backend) -> None:
                self.backend = backend

            def resumeProducing(self) -> None:
                nonlocal sent
                sent += 65536
                self.backend.transport.write(bytes(65536))
                if sent > 100_000_000:
                    self.stopProducing()

            def stopProducing(self) -> None:
                self.backend.transport.unregisterProducer()

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(SWITCH)
            backend.transport.registerProducer(Endless(backend), False)

        self.serve(script)
        client = await self.connect()
        client.transport.write(self.get(b"/chat", *UPGRADE))
        await client.until(lambda: b"\r\n\r\n" in client.got)
        client.transport.pauseProducing()
        await deferLater(reactor, 0.3)
        self.assertLess(sent, 60_000_000)
