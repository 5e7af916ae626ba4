"""Rewriting within the worker: framing, keepalive, and readers that are slow."""

from __future__ import annotations

import zlib
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from lbarray.rewrite.service import Chained, RewriteService
from tests.rewrite.test_plugins import examples
from tests.rewrite.test_service import gzip, make_cdn
from tests.worker.engine import Backend, BackendServer, Engine
from tests.worker.test_client_h2 import Http2Engine

reactor: Any = global_reactor

PAGE = b"<p>x</p><img src=/static/x>" * 4_000
MOVED = PAGE.replace(b"=/static", b"=https://cdn.example/static")


def script(head: bytes, content: bytes) -> Any:
    """Answers each GET with all of it, each HEAD with its head."""

    def answer(backend: Backend, data: bytes) -> None:
        for request in data.split(b"\r\n\r\n")[:-1]:
            backend.transport.write(head + b"\r\n\r\n" + (b"" if request.startswith(b"HEAD") else content))

    return answer


class Rewritten(Engine):
    """Mix in: a worker with the rewriting service as its filter."""

    def serve_rewritten(self, answer: Any, **more: Any) -> None:
        service = RewriteService(
            reactor=reactor, counters=self.counters, cdn=make_cdn(self.counters), memo_octets=1 << 24, **more
        )
        service.startService()
        self.addCleanup(service.stopService)
        server = BackendServer(answer)
        self.servers.append(server)
        self.listening.append(reactor.listenTCP(0, server, interface="127.0.0.1"))
        self.start([self.listening[-1].getHost().port], filters=(service,))

    def head(self, content: bytes, *more: bytes) -> bytes:
        length = b"Content-Length: %d" % len(content)
        return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Type: text/html", b'ETag: "x"', length, *more])


class RewritingTests(Rewritten):
    """HTTP/1.1 clients."""

    @staticmethod
    def content(answer: bytes) -> bytes:
        """The content of one response in chunks."""
        _, _, rest = answer.partition(b"\r\n\r\n")
        out = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            out += rest[: int(size, 16)]
            rest = rest[int(size, 16) + 2 :]
            if size == b"0":
                break
        return out

    async def whole(self, octets: bytes, responses: int = 1) -> bytes:
        client = await self.connect()
        client.transport.write(octets)
        await client.until(lambda: client.got.count(b"\r\n0\r\n\r\n") >= responses or client.closed)
        return bytes(client.got)

    async def test_keepalive(self) -> None:
        """A length becomes chunks; the next request of the connection has its own page, from the memo the same."""
        self.serve_rewritten(script(self.head(PAGE), PAGE))
        got = await self.whole(self.get() + self.get(), 2)
        self.assertNotIn(b"Content-Length", got)
        first, second, rest = (part + b"\r\n0\r\n\r\n" for part in got.split(b"\r\n0\r\n\r\n"))
        self.assertEqual(self.content(first), MOVED)
        self.assertEqual(self.content(second), MOVED)
        self.assertEqual(rest, b"\r\n0\r\n\r\n")
        self.assertEqual(self.counters.get("rewrite_urls"), 8_000)

    async def test_coded(self) -> None:
        """A coded page comes coded."""
        coded = gzip(PAGE)
        self.serve_rewritten(script(self.head(coded, b"Content-Encoding: gzip"), coded))
        got = await self.whole(self.get(b"/", b"Accept-Encoding: gzip"))
        self.assertEqual(zlib.decompress(self.content(got), 31), MOVED)

    async def test_head(self) -> None:
        """HEAD has the fields of GET, no length and no content."""
        self.serve_rewritten(script(self.head(PAGE), PAGE))
        client = await self.connect()
        client.transport.write(self.get(method=b"HEAD"))
        await client.until(lambda: b"\r\n\r\n" in client.got)
        self.assertTrue(client.got.endswith(b"\r\n\r\n"))
        self.assertNotIn(b"Content-Length", client.got)
        self.assertIn(b'ETag: W/"x;lb=', client.got)

    async def test_tree(self) -> None:
        """A filter that works in a thread keeps its response waiting, and nobody else's."""
        trackers = examples().without_trackers.filter({"hosts": ["t.example"]})
        page = b"<html><script src=//t.example/x></script><p>hello</p></html>"
        self.serve_rewritten(script(self.head(page), page), chain=[Chained(filter=trackers)])
        got = await self.whole(self.get() + self.get(), 2)
        self.assertEqual(got.count(b"<p>hello</p>"), 2)
        self.assertNotIn(b"t.example", got)

    async def test_slow_reader(self) -> None:
        """Who does not read gets no more made for him than a connection may hold; later he gets all of it."""
        coded = gzip(PAGE * 20)
        self.serve_rewritten(script(self.head(coded, b"Content-Encoding: gzip"), coded))
        client = await self.connect()
        client.transport.pauseProducing()
        client.transport.write(self.get(b"/", b"Accept-Encoding: gzip"))
        await deferLater(reactor, 0.2)
        client.transport.resumeProducing()
        await client.until(lambda: client.got.endswith(b"\r\n0\r\n\r\n") or client.closed)
        self.assertEqual(zlib.decompress(self.content(bytes(client.got)), 31), MOVED * 20)

    async def test_client_goes(self) -> None:
        """When the client goes in the middle nothing is left behind, and the next one is served."""
        self.serve_rewritten(script(self.head(PAGE), PAGE))
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: b"\r\n\r\n" in client.got)
        client.transport.abortConnection()
        self.assertEqual(self.content(await self.whole(self.get())), MOVED)


class RewritingHttp2Tests(Rewritten, Http2Engine):
    """HTTP/2 clients."""

    async def test_streams(self) -> None:
        """Several large pages at once, in slices, each whole; one is a tree."""
        trackers = examples().without_trackers.filter({"hosts": ["t.example"]})
        chain = [Chained(filter=trackers, path=b"/tree")]
        self.serve_rewritten(script(self.head(PAGE), PAGE), chain=chain)
        client = await self.meet()
        replies = [client.ask(path=path) for path in ("/a", "/b", "/tree", "/a")]
        await client.until(lambda: all(reply.over for reply in replies))
        for reply in replies:
            self.assertEqual((reply.status, reply.ended), (200, True))
            self.assertNotIn(b"content-length", reply.heads[0])
            self.assertEqual(reply.content.count(b"https://cdn.example/static/x"), 4_000)
        self.assertEqual(replies[0].content, MOVED)
