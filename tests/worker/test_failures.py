"""Back ends that fail: what is repeated, what is not, what the client is told, and what a mirror may not do."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from lbarray.backends.connections import IdleConnections
from lbarray.http.limits import Limits
from lbarray.values import Handling, Outcome
from tests.worker.engine import OK, Backend, Engine, answer

reactor: Any = global_reactor


def breaks(backend: Backend, data: bytes) -> None:
    """Ends the connection without an answer."""
    backend.transport.loseConnection()


def status(number: int) -> Any:
    """Answers with this status."""
    return answer(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % number)


class RepeatTests(Engine):
    """Again, on another back end."""

    async def asked(self, octets: bytes) -> bytes:
        client = await self.connect()
        client.transport.write(octets)
        await client.until(lambda: client.got.endswith((b"hi", b"no", b"\n")) or client.closed)
        return client.got[9:12]

    async def test_broken(self) -> None:
        """A connection that breaks before the answer: repeated if the route and the method allow it."""
        for handling, method, wanted in (
            (Handling(retry_broken=True), b"GET", b"200"),
            (Handling(retry_broken=True), b"POST", b"502"),
            (Handling(), b"GET", b"502"),
        ):
            self.serve(breaks, answer(OK))
            self.requests.handling = handling
            self.assertEqual(await self.asked(self.get(method=method)), wanted, (handling, method))

    async def test_content_is_not_repeated(self) -> None:
        """PUT with content: the content is gone, so nothing is sent twice."""
        self.serve(breaks, answer(OK))
        self.requests.handling = Handling(retry_broken=True)
        self.assertEqual(await self.asked(self.get(b"/", b"Content-Length: 2", method=b"PUT") + b"ab"), b"502")
        self.assertEqual(self.servers[-1].asked, b"")

    async def test_statuses(self) -> None:
        """A status that the route does not want: another one is asked, and the first answer is seen by nobody."""
        self.serve(status(503), answer(OK))
        self.requests.handling = Handling(retry_statuses=frozenset([503]))
        self.assertEqual(await self.asked(self.get()), b"200")
        self.assertEqual(self.requests.outcomes, [Outcome.SERVER_ERROR, Outcome.ANSWERED])
        self.assertEqual(await self.asked(self.get(method=b"POST")), b"503")

    async def test_nobody_else(self) -> None:
        """When there is nobody else, the client gets what there is."""
        self.serve(status(503))
        self.requests.handling = Handling(retry_statuses=frozenset([503]))
        self.assertEqual(await self.asked(self.get()), b"503")

    async def test_unreachable_with_content(self) -> None:
        """Content that waits for a connection goes whole to the next back end, however much of it there is."""
        body = bytes(range(256)) * 380

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith(body):
                backend.transport.write(OK)

        self.serve(script)
        good = self.requests.ports[0]
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.requests.ports[:] = [closed.getsockname()[1], good]
        self.requests.idle.append(IdleConnections(max_idle=9, idle_timeout_s=9))
        self.assertEqual(
            await self.asked(self.get(b"/", b"Content-Length: %d" % len(body), method=b"POST") + body), b"200"
        )

    async def test_no_answer_to_a_connection(self) -> None:
        """A back end that takes no connection in time, and nobody else: 504; one that refuses it: 503."""
        self.limits = Limits(connect_timeout_s=0.1)
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            fillers = [socket.socket() for _ in range(3)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            self.start([port])
            self.assertEqual(await self.asked(self.get()), b"504")
            for filler in fillers:
                filler.close()
        self.start([port])
        self.assertEqual(await self.asked(self.get()), b"503")

    async def test_route_of_its_own_patience(self) -> None:
        """A route's time-out holds in place of the worker's."""
        self.serve(lambda backend, data: None)
        self.requests.handling = Handling(response_timeout_s=0.0)
        client = await self.connect()
        client.transport.write(self.get())
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        self.factory.sweep()
        await client.until(lambda: client.got.startswith(b"HTTP/1.1 504"))

    async def test_queue_without_end(self) -> None:
        """A request that still waits for a back end when its time is up: 503, and no back end is blamed."""
        self.serve(answer(OK))
        self.requests.waiting = True
        client = await self.connect()
        client.transport.write(self.get())
        while not self.requests.queue:
            await deferLater(reactor, 0.005)
        for connection in self.factory.connections:
            connection.deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: client.got.startswith(b"HTTP/1.1 503"))
        self.assertEqual(self.requests.outcomes, [Outcome.CLIENT_GONE])

    async def test_route_of_its_own_size(self) -> None:
        """A route's limit of content holds for chunks, too: 413."""
        self.serve(lambda backend, data: None)
        self.requests.handling = Handling(max_body=10)
        chunks = b"6\r\nabcdef\r\n" * 2
        self.assertEqual(
            await self.asked(self.get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + chunks), b"413"
        )


class MirrorTests(Engine):
    """A copy of requests for a back end that nobody waits for."""

    async def test_copied(self) -> None:
        """It gets head and content; its answer is dropped, and so is its failure."""
        for mirror in (answer(b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno"), breaks, lambda backend, data: None):
            self.serve(answer(OK), mirror)
            self.requests.mirrors = (1,)
            client = await self.ask(self.get(b"/", b"Content-Length: 3", method=b"POST") + b"abc")
            self.assertEqual(client.got[9:12], b"200")
            while not self.servers[-1].asked.endswith(b"abc"):
                await deferLater(reactor, 0.005)
            self.assertEqual(self.servers[-1].asked, self.servers[-2].asked)
        for mirror_call in reactor.getDelayedCalls():
            if "Mirror" in str(mirror_call.func):
                mirror_call.func()

    async def test_slow(self) -> None:
        """One that does not read is left when it is too far behind; the request itself is whole."""
        self.limits = Limits(max_body=1 << 30)
        body = bytes(20_000_000)
        arrived = 0

        def script(backend: Backend, data: bytes) -> None:
            nonlocal arrived
            arrived += len(data)
            self.servers[0].asked = b""
            if arrived > len(body):
                backend.transport.write(OK)

        self.serve(script, lambda backend, data: backend.transport.pauseProducing())
        self.requests.mirrors = (1,)
        client = await self.ask(self.get(b"/", b"Content-Length: %d" % len(body), method=b"POST") + body)
        self.assertEqual(client.got[9:12], b"200")
        self.assertIn(Outcome.CLIENT_GONE, self.requests.outcomes)

    async def test_dead(self) -> None:
        """One that takes no connection holds nothing up."""
        self.serve(answer(OK))
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.requests.ports.append(closed.getsockname()[1])
        self.requests.idle.append(IdleConnections(max_idle=9, idle_timeout_s=9))
        self.requests.mirrors = (1,)
        client = await self.ask(self.get())
        self.assertEqual(client.got[9:12], b"200")
        while len(self.requests.outcomes) < 2:
            await deferLater(reactor, 0.005)
        self.assertEqual(set(self.requests.outcomes), {Outcome.ANSWERED, Outcome.CONNECT_FAILED})
