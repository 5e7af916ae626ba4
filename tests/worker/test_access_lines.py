"""Which requests have a line in the access log, and what it says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from lbarray.http.forwarding import Forwarding
from lbarray.telemetry.access_log import Record
from lbarray.telemetry.durations import ends_of
from lbarray.telemetry.spans import CLIENT, SERVER, Span, encode
from tests.worker.engine import OK, Backend, Client, Engine, answer

reactor: Any = global_reactor


class Remembers(list[Record]):
    """In place of the log."""

    def add(self, record: Record) -> None:
        self.append(record)


class AccessTests(Engine):
    """One line for each request, whatever becomes of it."""

    def served(self, *scripts: Any) -> Remembers:
        self.serve(*scripts)
        lines: Any = Remembers()
        self.factory.access_log = lines
        self.factory.name = "https"
        found: Remembers = lines
        return found

    async def ended(self, client: Client) -> None:
        await client.until(lambda: client.closed)
        await deferLater(reactor, 0.01)

    async def test_answered(self) -> None:
        """Who asked, for what, what came of it, from whom."""
        lines = self.served(answer(OK))
        await self.ask(self.get(b"/p?q", b"User-Agent: curl/8", b"referer: https://a.example/"))
        [line] = lines
        self.assertEqual(
            (line.client, line.method, line.target, line.version, line.status, line.octets, line.agent, line.referer),
            ("127.0.0.1", b"GET", b"/p?q", (1, 1), 200, 2, b"curl/8", b"https://a.example/"),
        )
        self.assertEqual((line.host, line.backend, line.service), (b"a.example", "w0", "https"))

    async def test_route(self) -> None:
        """The line and the counters have the request's route; what no route was for has none."""
        lines = self.served(answer(OK))
        await self.ask(self.get(b"/p"))
        [line] = lines
        self.assertEqual(line.route, "*/")
        ends = ends_of(self.factory.counters)
        self.assertEqual({route for _, route, _ in ends}, {"*/"})

    async def test_traced(self) -> None:
        """Where traces are begun, back end and log have the same one; otherwise the back end gets none."""
        lines = self.served(answer(OK))
        await self.ask(self.get())
        self.assertNotIn(b"traceparent", self.servers[0].asked.lower())
        self.factory.forwarding = Forwarding(traces=True)
        await self.ask(self.get())
        self.assertEqual(lines[0].trace, b"")
        self.assertIn(b"traceparent: 00-" + lines[1].trace + b"-", self.servers[0].asked)

    async def test_recorded(self) -> None:
        """A recorded request leaves its span and that of asking, whose id the back end was given as its parent."""
        self.serve(answer(OK))
        spans: list[Span] = []
        self.factory.tracing = SimpleNamespace(samples=lambda: True, add=spans.append)
        await self.ask(self.get(b"/p?secret"))
        own, asking = spans
        self.assertEqual((own.kind, asking.kind), (SERVER, CLIENT))
        self.assertEqual((own.parent, asking.parent, own.trace), (b"", own.span, asking.trace))
        self.assertIn(b"traceparent: 00-" + own.trace + b"-" + asking.span + b"-01", self.servers[0].asked)
        self.assertLessEqual(own.began_s, asking.began_s)
        self.assertEqual(own.name, "GET */")
        found = dict(own.attributes)
        self.assertEqual((found["url.path"], found["http.response.status_code"]), ("/p", 200))
        self.assertNotIn("secret", str(spans))
        self.assertEqual(dict(asking.attributes)["lbarray.backend"], "w0")
        self.assertIn(b'{"key":"server.address","value":{"stringValue":"a.example"}}', encode(spans, {}, "1"))

    async def test_recorded_without_back_end(self) -> None:
        """Where nobody could be asked, there is one span, and it says that this failed."""
        self.start([])
        spans: list[Span] = []
        self.factory.tracing = SimpleNamespace(samples=lambda: True, add=spans.append)
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: b"503" in client.got)
        self.assertEqual([(span.kind, span.error) for span in spans], [(SERVER, True)])

    async def test_each_of_a_connection(self) -> None:
        """Keepalive and pipelining make no difference."""
        lines = self.served(answer(OK))
        await self.ask(self.get(b"/1") + self.get(b"/2"), wanted=2)
        self.assertEqual([line.target for line in lines], [b"/1", b"/2"])

    async def test_refused(self) -> None:
        """What is no request has its line as well, with the status that it got."""
        lines = self.served(answer(OK))
        client = await self.connect()
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        await client.until(lambda: b"400" in client.got)
        self.assertEqual([(line.method, line.status) for line in lines], [(b"-", 400)])

    async def test_no_back_end(self) -> None:
        """Our own answers are answers."""
        lines = self.served()
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: b"503" in client.got)
        self.assertEqual([line.status for line in lines], [503])

    async def test_client_gone(self) -> None:
        """A client that did not wait is 499."""

        def silent(backend: Backend, data: bytes) -> None:
            """Says nothing."""

        lines = self.served(silent)
        client = await self.connect()
        client.transport.write(self.get())
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        client.transport.abortConnection()
        await self.ended(client)
        self.assertEqual([line.status for line in lines], [499])

    async def test_cut_short(self) -> None:
        """A response that breaks off is there once, with what was sent of it."""

        def cut(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            backend.transport.loseConnection()

        lines = self.served(cut)
        client = await self.connect()
        client.transport.write(self.get())
        await self.ended(client)
        self.assertEqual([(line.status, line.octets) for line in lines], [(200, 4)])
