"""Requests and responses of HTTP/1.1 between real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from lbarray.backends.connections import IdleConnections
from lbarray.http.events import OwnAnswer
from lbarray.http.limits import Limits
from lbarray.values import Outcome
from tests.worker.engine import OK, Backend, Client, Engine, Refused, answer, closed_port

reactor: Any = global_reactor


class EngineTests(Engine):
    """One client connection."""

    # Forwarding

    async def test_fields_for_the_back_end(self) -> None:
        """It learns who the client is and through whom it came; what a client claims of itself is dropped."""
        self.serve(answer(OK))
        await self.ask(self.get(b"/p?q", b"X-Forwarded-For: 6.6.6.6", b"Connection: x-hop", b"X-Hop: 1", b"X-End: 1"))
        asked = self.servers[0].asked
        self.assertTrue(asked.startswith(b"GET /p?q HTTP/1.1\r\nHost: a.example\r\n"))
        for line in (
            b"X-Forwarded-For: 127.0.0.1",
            b"X-Forwarded-Proto: http",
            b"X-Forwarded-Host: a.example",
            b"Via: 1.1 lbarray",
            b"X-End: 1",
        ):
            self.assertEqual(asked.count(line + b"\r\n"), 1, asked)
        for gone in (b"6.6.6.6", b"X-Hop", b"Connection"):
            self.assertNotIn(gone, asked)

    async def test_keepalive(self) -> None:
        """Requests of one connection are scheduled one by one and use one back-end connection."""
        self.serve(answer(OK))
        client = await self.ask(self.get())
        await self.ask(self.get(), 2, client)
        await self.ask(self.get(), 3, client)
        self.assertEqual(len(self.requests.heads), 3)
        self.assertEqual(len(self.servers[0].open) + self.servers[0].lost, 1)
        self.assertEqual(self.requests.outcomes, [Outcome.ANSWERED] * 3)

    async def test_pipelined_in_order(self) -> None:
        """Requests that come together are answered in their order, one at a time."""

        def script(backend: Backend, data: bytes) -> None:
            number = data.split(b" ")[1][1:]
            backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + number + b"hi")

        self.serve(script)
        client = await self.ask(b"".join(self.get(b"/%d" % number) for number in range(5)), 5)
        self.assertEqual([client.got[at - 1 : at] for at in _ends(client.got)], [b"0", b"1", b"2", b"3", b"4"])

    async def test_pipelined_by_the_hundred(self) -> None:
        """However many come together behind a request that takes its time, and are then answered at once."""

        def script(backend: Backend, data: bytes) -> None:
            self.requests.answer = OwnAnswer(200, content=b"hi")
            backend.transport.write(OK)

        self.serve(script)
        octets = b"".join(self.get(b"/%d" % number) for number in range(1500))
        client = await self.ask(octets, 1500)
        self.assertEqual((client.got.count(b"HTTP/1.1 200"), client.closed), (1500, False))

    async def test_response_fields(self) -> None:
        """The assignment's fields are added, hop-by-hop ones are not passed on."""
        self.serve(answer(OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: 5\r\nX: y\r\n\r\n")))
        self.requests.fields = ((b"Set-Cookie", b"LB=x"),)
        client = await self.ask(self.get())
        self.assertIn(b"\r\nSet-Cookie: LB=x\r\n", client.got)
        self.assertIn(b"\r\nX: y\r\n", client.got)
        self.assertNotIn(b"Keep-Alive", client.got)

    async def test_answer_without_a_back_end(self) -> None:
        """A redirect is sent as the scheduler said; the connection lives on and no back end hears of it."""
        self.serve(answer(OK))
        self.requests.answer = OwnAnswer(308, ((b"Location", b"https://a.example/"),), b"")
        client = await self.connect()
        client.transport.write(self.get() + self.get())
        await client.until(lambda: client.got.count(b"\r\n\r\n") == 2)
        self.assertEqual(client.got.count(b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://a.example/\r\n"), 2)
        self.assertEqual(self.servers[0].asked, b"")

    async def test_rewritten_target(self) -> None:
        """The back end is asked for the assignment's target."""
        self.serve(answer(OK))
        self.requests.target = b"/inner?x"
        await self.ask(self.get(b"/outer?x"))
        self.assertTrue(self.servers[0].asked.startswith(b"GET /inner?x HTTP/1.1\r\n"))

    async def queued(self) -> None:
        """Until a request stands in the scheduler's queue, for a second at most."""
        for _ in range(1000):
            if self.requests.queue:
                return
            await deferLater(reactor, 0.001)

    async def test_waiting_for_a_back_end(self) -> None:
        """A request of the queue keeps its content until it has a back end, however long it is."""
        body = b"0123456789" * 9000

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith(body):
                backend.transport.write(OK)

        self.serve(script)
        self.requests.waiting = True
        client = await self.connect()
        client.transport.write(b"POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await self.queued()
        await deferLater(reactor, 0.02)
        self.assertEqual(self.servers[0].asked, b"")
        self.requests.queue.pop()(None)
        await client.until(lambda: client.got.endswith(b"hi"))

    async def test_waited_in_vain(self) -> None:
        """When the queue's deadline passes the client gets its refusal and may ask again."""
        self.serve(answer(OK))
        self.requests.waiting = True
        client = await self.connect()
        client.transport.write(self.get())
        await self.queued()
        self.requests.queue.pop()(Refused("queue"))
        await client.until(lambda: client.got.endswith(b"503 Service Unavailable\n"))
        self.assertIn(b"Retry-After: 1\r\n", client.got)
        self.requests.waiting = False
        client.transport.write(self.get())
        await client.until(lambda: client.got.endswith(b"hi"))
        self.assertEqual(self.requests.outcomes, [Outcome.CLIENT_GONE, Outcome.ANSWERED])

    async def test_content_both_ways(self) -> None:
        """Chunked content goes on in chunks, content of a length with its length, octet for octet."""
        body = bytes(range(256)) * 200

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith((b"\r\n0\r\n\r\n", body)):
                backend.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")

        self.serve(script)
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        client = await self.ask(self.get(b"/", b"Transfer-Encoding: chunked", method=b"POST") + chunk)
        self.assertIn(b"Transfer-Encoding: chunked", self.servers[0].asked)
        await self.ask(self.get(b"/", b"Content-Length: %d" % len(body), method=b"POST") + body, 2, client)
        self.assertTrue(self.servers[0].asked.endswith(body))
        self.assertEqual(client.got.count(b"\r\n2\r\nhi\r\n0\r\n\r\n"), 2)

    async def test_until_the_end(self) -> None:
        """A back end that ends its content by closing: chunks for 1.1, a close for 1.0."""

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 200 OK\r\n\r\nhi")
            backend.transport.loseConnection()

        self.serve(script)
        client = await self.ask(self.get())
        await client.until(lambda: client.got.endswith(b"\r\n2\r\nhi\r\n0\r\n\r\n"))
        self.assertFalse(client.closed)
        old = await self.ask(b"GET / HTTP/1.0\r\n\r\n")
        await old.until(lambda: old.closed)
        self.assertTrue(old.got.endswith(b"\r\n\r\nhi"))
        self.assertNotIn(b"chunked", old.got)

    async def test_head_and_no_content(self) -> None:
        """HEAD, 204 and 304 end with their heads; the connections go on."""

        def script(backend: Backend, data: bytes) -> None:
            if data.startswith(b"HEAD"):
                backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
            elif b"/none" in data:
                backend.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            elif b"/same" in data:
                backend.transport.write(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n')
            else:
                backend.transport.write(OK)

        self.serve(script)
        octets = self.get(method=b"HEAD") + self.get(b"/none") + self.get(b"/same") + self.get()
        client = await self.ask(octets)
        self.assertEqual(client.got.count(b"HTTP/1.1 "), 4)
        self.assertIn(b"Content-Length: 99\r\n", client.got)
        self.assertNotIn(b"chunked", client.got)
        self.assertEqual(len(self.servers[0].open) + self.servers[0].lost, 1)

    async def test_continue(self) -> None:
        """Expect goes to the back end, its 100 to the client, and then the content."""

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n" if b"Expect" in data else OK)

        self.serve(script)
        client = await self.connect()
        client.transport.write(self.get(b"/", b"Content-Length: 3", b"Expect: 100-continue", method=b"POST"))
        await client.until(lambda: client.got == b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.ask(b"abc", 1, client)
        self.assertTrue(client.got.endswith(b"hi"))

    async def test_early_answer(self) -> None:
        """A back end that answers before the content is there: the answer arrives, the connection ends."""
        self.serve(answer(OK))
        client = await self.ask(self.get(b"/", b"Content-Length: 50000", method=b"POST"))
        await client.until(lambda: client.closed)
        self.assertIn(b"Connection: close", client.got)

    async def test_old_client_keeps_alive(self) -> None:
        """HTTP/1.0 with keep-alive is told that it may."""
        self.serve(answer(OK))
        client = await self.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        self.assertIn(b"Connection: keep-alive", client.got)
        self.assertFalse(client.closed)

    async def test_last_request(self) -> None:
        """``Connection: close`` is answered and then closed."""
        self.serve(answer(OK))
        client = await self.ask(self.get(b"/", b"Connection: close"))
        await client.until(lambda: client.closed)
        self.assertIn(b"Connection: close", client.got)

    async def test_proof_of_identity_is_ours(self) -> None:
        """Whatever a client says in ``Client-Cert``, spelled however, does not reach a back end (RFC 9440 §4)."""
        self.serve(answer(OK))
        await self.ask(self.get(b"/", b"Client-Cert: :AAAA:", b"client_cert: x", b"CLIENT-CERT-CHAIN: y"))
        self.assertNotIn(b"client", self.servers[0].asked.lower())

    # Back pressure

    async def test_slow_client_stops_the_back_end(self) -> None:
        """While a client does not read, we read little more from its back end."""
        size = 16_000_000

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            backend.transport.registerProducer(_Endless(backend, size), False)

        self.serve(script)
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: bool(client.got))
        client.transport.pauseProducing()
        await deferLater(reactor, 0.3)
        held = sum(connection.transport.unsent_octets for connection in self.factory.connections)
        self.assertLess(held, 1_000_000)
        client.transport.resumeProducing()
        await client.until(lambda: len(client.got) > size)

    async def test_slow_back_end_stops_the_client(self) -> None:
        """While a back end does not read, we read little more from the client."""
        self.limits = Limits(max_body=1 << 30)

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.pauseProducing()

        self.serve(script)
        client = await self.connect()
        size = 30_000_000
        client.transport.write(self.get(b"/", b"Content-Length: %d" % size, method=b"PUT") + bytes(size))
        await deferLater(reactor, 0.4)
        self.assertGreater(len(client.transport.dataBuffer) - client.transport.offset, 10_000_000)

    # When things go wrong

    async def test_nobody(self) -> None:
        """Without a back end: 503, and the connection goes on."""
        self.start([])
        client = await self.connect()
        client.transport.write(self.get() + self.get())
        await client.until(lambda: client.got.count(b"HTTP/1.1 503") == 2)
        self.assertFalse(client.closed)

    async def test_unreachable(self) -> None:
        """A back end that takes no connection: the next one is asked, any method, nothing was sent."""
        self.serve(answer(OK))
        good = self.requests.ports[0]
        self.requests.ports[:] = [closed_port(self), good]
        self.requests.idle.append(IdleConnections(max_idle=9, idle_timeout_s=9))
        await self.ask(self.get(b"/", b"Content-Length: 3", method=b"POST") + b"abc")
        self.assertEqual(self.requests.outcomes, [Outcome.CONNECT_FAILED, Outcome.ANSWERED])
        self.assertTrue(self.servers[0].asked.endswith(b"abc"))

    async def test_none_reachable(self) -> None:
        """When nobody takes the connection: 503."""
        self.start([closed_port(self)])
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: client.got.startswith(b"HTTP/1.1 503"))

    async def test_stale_connection(self) -> None:
        """A kept connection that the back end just closed: what is idempotent is asked once more, over a new one."""
        count = 0

        def script(backend: Backend, data: bytes) -> None:
            nonlocal count
            count += 1
            if count == 2:
                backend.transport.abortConnection()
            else:
                backend.transport.write(OK)

        self.serve(script, script)
        client = await self.ask(self.get())
        await self.ask(self.get(), 2, client)
        self.assertEqual(self.requests.places, [0, 0])
        self.assertEqual(self.counters.get("retries", "stale"), 1)
        self.assertEqual(self.requests.outcomes, [Outcome.ANSWERED] * 2)

    async def test_never_twice(self) -> None:
        """What may have had an effect is not repeated: 502."""
        for method, connection in ((b"POST", b"kept"), (b"GET", b"new")):
            count = 0

            def script(backend: Backend, data: bytes, kept: bool = connection == b"kept") -> None:
                nonlocal count
                count += 1
                if count == 1 and kept:
                    backend.transport.write(OK)
                else:
                    backend.transport.abortConnection()

            self.serve(script, script)
            client = await self.connect()
            if connection == b"kept":
                await self.ask(self.get(), 1, client)
            client.transport.write(self.get(method=method))
            await client.until(lambda client=client: b"HTTP/1.1 502" in client.got)  # type: ignore[misc]
            self.assertEqual(set(self.requests.places), {0})

    async def test_no_http(self) -> None:
        """A back end that speaks something else: 502, and its connection is not used again."""
        self.serve(answer(b"SSH-2.0-x\r\n"))
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: client.got.startswith(b"HTTP/1.1 502"))
        self.assertEqual(len(self.requests.idle[0]), 0)

    async def test_cut_short(self) -> None:
        """A response that breaks off is not made to look whole."""

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
            reactor.callLater(0.02, backend.transport.loseConnection)

        self.serve(script)
        client = await self.connect()
        client.transport.write(self.get())
        await client.until(lambda: client.closed)
        self.assertFalse(client.got.endswith(b"0\r\n\r\n"))
        self.assertEqual(self.requests.outcomes, [Outcome.BROKEN])

    async def test_bad_request(self) -> None:
        """Refused with its status, nothing of it is forwarded, the connection ends; earlier answers stand."""
        self.serve(answer(OK))
        client = await self.ask(self.get())
        client.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        await client.until(lambda: client.closed)
        self.assertEqual(client.got.count(b"HTTP/1.1 400 Bad Request"), 1)
        self.assertEqual(len(self.requests.heads), 1)
        self.assertEqual(self.counters.get("bad_requests", "host"), 1)

    async def test_statuses(self) -> None:
        """Each kind of refusal has its own."""
        self.serve(answer(OK))
        for octets, status in (
            (self.get(b"/", b"X: " + b"y" * 4000), b"431"),
            (self.get(b"/", b"Content-Length: 100001", method=b"POST"), b"413"),
            (self.get(method=b"BREW"), b"501"),
            (b"GET / HTTP/3.0\r\n\r\n", b"505"),
            (b"\x16\x03\x01\x02\x00", b"400"),
        ):
            client = await self.connect()
            client.transport.write(octets)
            await client.until(lambda client=client: client.closed)  # type: ignore[misc]
            self.assertEqual(client.got[:12], b"HTTP/1.1 " + status)

    async def test_refused_upload_reads_its_answer(self) -> None:
        """A client that is in the middle of sending gets the whole answer, not a reset connection."""
        self.serve(answer(OK))
        for octets, status in (
            (self.get(b"/", b"Content-Length: 5000000", method=b"POST"), b"413"),
            (self.get(b"/", b"Host: b", b"Content-Length: 90000", method=b"POST"), b"400"),
        ):
            client = await self.connect()
            client.transport.write(octets + bytes(5_000_000))
            await client.until(lambda client=client: client.got.endswith(b"\n"))  # type: ignore[misc]
            self.assertTrue(client.got.startswith(b"HTTP/1.1 " + status))
            await deferLater(reactor, 0.2)
            self.assertEqual(client.reason, "")
            client.transport.loseConnection()
            await client.until(lambda client=client: bool(client.reason))  # type: ignore[misc]
            self.assertEqual(client.reason, "ConnectionDone")

    async def test_lingering_ends(self) -> None:
        """A client that never stops sending is cut off in the end."""
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await client.until(lambda: client.got.endswith(b"\n"))
        await deferLater(reactor, 0.02)
        for connection in self.factory.connections:
            connection.deadline = 0.0
        self.factory.sweep()
        await deferLater(reactor, 0.05)
        self.assertEqual(self.factory.connections, set())

    async def test_client_leaves(self) -> None:
        """A client that leaves takes its back-end connection with it; nothing counts against the back end."""
        self.serve(lambda backend, data: None)
        client = await self.connect()
        client.transport.write(self.get())
        while not self.servers[0].asked:
            await deferLater(reactor, 0.01)
        client.transport.abortConnection()
        while self.servers[0].open:
            await deferLater(reactor, 0.01)
        self.assertEqual(self.requests.outcomes, [Outcome.CLIENT_GONE])

    # Time

    async def late(self, octets: bytes) -> Client:
        """A client that sends ``octets`` and then waits beyond every limit."""
        client = await self.connect()
        client.transport.write(octets)
        await deferLater(reactor, 0.05)
        for connection in self.factory.connections:
            connection.deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: client.closed or client.got.endswith(b"\n"))
        return client

    async def test_silent_back_end(self) -> None:
        """504, and the back end is charged with it."""
        self.serve(lambda backend, data: None)
        client = await self.late(self.get())
        self.assertTrue(client.got.startswith(b"HTTP/1.1 504"))
        self.assertEqual(self.requests.outcomes, [Outcome.TIMED_OUT])

    async def test_slow_head(self) -> None:
        """408 for a head that does not end."""
        self.serve(answer(OK))
        client = await self.late(b"GET / HTTP/1.1\r\nHost: a")
        self.assertTrue(client.got.startswith(b"HTTP/1.1 408"))

    async def test_trickle_gains_no_time(self) -> None:
        """Octet by octet does not push the limit of a head into the distance."""
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(b"G")
        await deferLater(reactor, 0.02)
        connection = next(iter(self.factory.connections))
        first = connection.deadline
        client.transport.write(b"E")
        await deferLater(reactor, 0.02)
        self.assertEqual(connection.deadline, first)

    async def test_slow_content(self) -> None:
        """408 for content that does not come; the back end is not to blame."""
        self.serve(lambda backend, data: None)
        client = await self.late(self.get(b"/", b"Content-Length: 3", method=b"POST"))
        self.assertTrue(client.got.startswith(b"HTTP/1.1 408"))
        self.assertEqual(self.requests.outcomes, [Outcome.CLIENT_GONE])

    async def test_idle(self) -> None:
        """A connection without a request is closed without a word."""
        self.serve(answer(OK))
        client = await self.late(b"")
        self.assertEqual(client.got, b"")


class _Endless:
    """Writes content whenever the transport has room."""

    def __init__(self, backend: Backend, size: int) -> None:
        self._transport = backend.transport
        self._left = size

    def resumeProducing(self) -> None:
        piece = min(self._left, 65536)
        self._left -= piece
        self._transport.write(bytes(piece))
        if not self._left:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self._left = 0


def _ends(got: bytes) -> list[int]:
    places = []
    at = got.find(b"hi")
    while at >= 0:
        places.append(at)
        at = got.find(b"hi", at + 1)
    return places
