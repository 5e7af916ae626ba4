"""What one client may cost: connections, requests, and all the ways of being slow."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.limits import Limits
from lbarray.values import Outcome
from lbarray.worker.clients import Clients
from tests.worker.engine import OK, Backend, Client, Engine, answer

reactor: Any = global_reactor


class ClientsTests(SynchronousTestCase):
    """Counting by address."""

    def test_nothing_is_counted_for_nothing(self) -> None:
        """Without limits no client is remembered."""
        clients = Clients(Limits())
        self.assertEqual(clients.connected("192.0.2.1"), (None, ""))
        self.assertEqual((len(clients), clients.connections), (0, 1))

    def test_connections_of_one(self) -> None:
        """More than one client may have are refused, until some have ended; others are not concerned."""
        clients = Clients(Limits(client_connections=2))
        first, _ = clients.connected("192.0.2.1")
        clients.connected("192.0.2.1")
        self.assertEqual(clients.connected("192.0.2.1"), (None, "client"))
        self.assertEqual(clients.connected("192.0.2.2")[1], "")
        clients.left(first)
        self.assertEqual(clients.connected("192.0.2.1")[1], "")

    def test_connections_of_all(self) -> None:
        """More than the node may have are refused, trusted hops' too; before that it is crowded."""
        clients = Clients(Limits(max_connections=10))
        for number in range(10):
            self.assertEqual(clients.crowded, number > 8)
            clients.connected(f"192.0.2.{number}")
        self.assertEqual(clients.connected("192.0.2.99", exempt=True), (None, "node"))

    def test_trusted_hops(self) -> None:
        """One that has many clients behind it is not one client."""
        clients = Clients(Limits(client_connections=1))
        for _ in range(5):
            self.assertEqual(clients.connected("192.0.2.1", exempt=True), (None, ""))

    def test_networks_of_ipv6(self) -> None:
        """All addresses of a /64 are one client."""
        clients = Clients(Limits(client_connections=1))
        clients.connected("2001:db8::1")
        self.assertEqual(clients.connected("2001:db8::ffff:1"), (None, "client"))
        self.assertEqual(clients.connected("2001:db8:0:1::1")[1], "")

    def test_requests(self) -> None:
        """A burst at once, then so many a second; a refused one says when the next may come and costs nothing."""
        clients = Clients(Limits(client_requests_per_s=2.0, client_burst=3))
        client = clients.find("192.0.2.1")
        self.assertEqual([clients.wait_s(client, 100.0) for _ in range(5)], [0, 0, 0, 1, 1])
        self.assertEqual([clients.wait_s(client, 100.5) for _ in range(2)], [0, 1])
        self.assertEqual([clients.wait_s(client, 200.0) for _ in range(4)], [0, 0, 0, 1])

    def test_forgotten(self) -> None:
        """Whoever has gone and has nothing to wait for takes no memory."""
        clients = Clients(Limits(client_requests_per_s=1.0, client_connections=9))
        client, _ = clients.connected("192.0.2.1")
        assert client is not None
        clients.wait_s(client, 100.0)
        clients.left(client)
        clients.forget(100.5)
        self.assertEqual(len(clients), 1)
        clients.forget(101.5)
        self.assertEqual(len(clients), 0)

    @settings(deadline=None, max_examples=80)
    @given(st.lists(st.floats(0, 2), max_size=60), st.integers(1, 5), st.integers(1, 5))
    def test_never_more(self, gaps: list[float], rate: int, burst: int) -> None:
        """In no stretch of time more requests pass than its rate and one burst allow."""
        clients = Clients(Limits(client_requests_per_s=float(rate), client_burst=burst))
        client = clients.find("a")
        now = 1000.0
        passed = []
        for gap in gaps:
            now += gap
            if not clients.wait_s(client, now):
                passed.append(now)
        for place, since in enumerate(passed):
            for count, until in enumerate(passed[place:], 1):
                self.assertLessEqual(count, (until - since) * rate + burst + 1e-6)


class LimitTests(Engine):
    """The same over connections."""

    async def test_too_many_connections(self) -> None:
        """The third of two is closed at once and counted; when one has gone there is room again."""
        self.limits = Limits(client_connections=2)
        self.serve(answer(OK))
        first = await self.ask(self.get())
        await self.ask(self.get())
        third = await self.connect()
        await third.until(lambda: third.closed)
        self.assertEqual(self.counters.get("connections_refused", "client"), 1)
        first.transport.loseConnection()
        await first.until(lambda: first.closed)
        await deferLater(reactor, 0.02)
        fourth = await self.ask(self.get())
        self.assertTrue(fourth.got.endswith(b"hi"))

    async def test_too_many_requests(self) -> None:
        """429 with Retry-After, over the same connection; nothing of it reaches the back end."""
        self.limits = Limits(client_requests_per_s=1.0, client_burst=2)
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(self.get() * 3)
        await client.until(lambda: client.got.endswith(b"429 Too Many Requests\n"))
        self.assertIn(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n", client.got)
        self.assertEqual(len(self.requests.heads), 2)
        self.assertFalse(client.closed)

    async def test_crowded(self) -> None:
        """Close to the node's limit idle connections make room."""
        self.limits = Limits(max_connections=5)
        self.serve(answer(OK))
        clients = [await self.ask(self.get()) for _ in range(5)]
        refused = await self.connect()
        await refused.until(lambda: refused.closed)
        for connection in self.factory.connections:
            connection.deadline -= 5.0
        self.factory.sweep()
        for client in clients:
            await client.until(lambda client=client: client.closed)  # type: ignore[misc]
        self.assertEqual(self.counters.get("timeouts", "crowded"), 5)


class SlowTests(Engine):
    """Attackers that take their time, as slowhttptest plays them: each holds a little memory, and not for ever."""

    COUNT = 100

    async def crowd(self, octets: bytes) -> list[Client]:
        """So many connections that have sent this."""
        clients = []
        for _ in range(self.COUNT):
            client = await self.connect()
            client.transport.write(octets)
            clients.append(client)
        await deferLater(reactor, 0.05)
        return clients

    async def others_are_served(self) -> None:
        client = await self.ask(self.get())
        self.assertTrue(client.got.endswith(b"hi"))

    def late(self) -> None:
        """The time of whatever is waited for has passed."""
        for connection in self.factory.connections:
            connection.deadline = min(connection.deadline, 0.0)
        self.factory.sweep()

    async def test_slow_heads(self) -> None:
        """Slowloris: fields without end, a few octets at a time. 408, whatever trickles in."""
        self.serve(answer(OK))
        clients = await self.crowd(b"GET / HTTP/1.1\r\nHost: a\r\n")
        deadlines = [connection.deadline for connection in self.factory.connections]
        for client in clients:
            client.transport.write(b"X-a: b\r\n")
        await deferLater(reactor, 0.02)
        self.assertEqual([connection.deadline for connection in self.factory.connections], deadlines)
        await self.others_are_served()
        self.late()
        for client in clients:
            await client.until(lambda client=client: client.got.startswith(b"HTTP/1.1 408"))  # type: ignore[misc]
        self.assertEqual(self.counters.get("timeouts", "request_head"), self.COUNT)

    async def test_empty_lines(self) -> None:
        """Nothing but line ends, for ever: they gain no time."""
        self.serve(answer(OK))
        clients = await self.crowd(b"\r\n")
        deadlines = [connection.deadline for connection in self.factory.connections]
        for client in clients:
            client.transport.write(b"\r\n\r\n")
        await deferLater(reactor, 0.02)
        self.assertEqual([connection.deadline for connection in self.factory.connections], deadlines)
        self.late()
        for client in clients:
            await client.until(lambda client=client: client.closed)  # type: ignore[misc]

    async def test_slow_content(self) -> None:
        """R-U-Dead-Yet: content octet by octet. Below the least rate: 408, and the back end is not blamed."""
        self.limits = Limits(body_timeout_s=30.0, body_rate=100)
        self.serve(lambda backend, data: backend.transport.write(OK) if b"GET" in data else None)
        clients = await self.crowd(self.get(b"/", b"Content-Length: 90000", method=b"POST"))
        for client in clients:
            client.transport.write(b"x" * 9)
        await deferLater(reactor, 0.05)
        await self.others_are_served()
        self.late()
        for client in clients:
            await client.until(lambda client=client: client.got.startswith(b"HTTP/1.1 408"))  # type: ignore[misc]
        self.assertEqual(self.requests.outcomes.count(Outcome.CLIENT_GONE), self.COUNT)

    async def test_fast_enough(self) -> None:
        """A client above the least rate has as long as it needs."""
        self.limits = Limits(body_timeout_s=30.0, body_rate=100)
        body = bytes(9000)

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith(body):
                backend.transport.write(OK)

        self.serve(script)
        client = await self.connect()
        client.transport.write(self.get(b"/", b"Content-Length: 9000", method=b"POST"))
        for at in range(0, 9000, 3000):
            client.transport.write(body[at : at + 3000])
            await deferLater(reactor, 0.02)
            if at < 6000:
                self.late()
                self.assertGreater(min(each.deadline for each in self.factory.connections), reactor.seconds())
        await client.until(lambda: client.got.endswith(b"hi"))

    async def test_slow_reading(self) -> None:
        """Responses that nobody reads: little is held of each, and it is given up when its time has passed."""
        size = 3_000_000
        self.serve(answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)))
        clients = []
        for _ in range(10):
            client = await self.connect()
            client.transport.pauseProducing()
            client.transport.write(self.get() * 5)
            clients.append(client)
        await deferLater(reactor, 0.2)
        for connection in self.factory.connections:
            held = getattr(connection.transport, "unsent_octets", None)
            if held is None:
                held = len(connection.transport.dataBuffer) + connection.transport._tempDataLen
            self.assertLess(held, 1_000_000)
        self.late()
        await deferLater(reactor, 0.05)
        self.assertEqual(self.factory.connections, set())
        self.assertEqual(self.counters.get("timeouts", "response_body"), 10)

    async def test_silence(self) -> None:
        """Connections on which nothing is ever said."""
        self.serve(answer(OK))
        clients = await self.crowd(b"")
        await self.others_are_served()
        self.late()
        for client in clients:
            await client.until(lambda client=client: client.closed)  # type: ignore[misc]

    async def test_pipelined_without_end(self) -> None:
        """Requests ahead of their answers: what one reading brought is kept, the rest stays with the client."""
        self.serve(lambda backend, data: None)
        client = await self.connect()
        client.transport.write(self.get() * 100_000)
        await deferLater(reactor, 0.2)
        connection = next(iter(self.factory.connections))
        self.assertLess(len(connection._waiting), 20_000)
        self.assertEqual(len(self.requests.heads), 1)
