"""Clients of HTTP/2 between real sockets: requests, flow control, trailers, and what is done to those who misbehave."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import ClientCreator
from twisted.internet.task import deferLater

from lbarray.http.h2_frames import PREFACE, SETTINGS, head
from lbarray.http.limits import Limits
from lbarray.values import Outcome
from tests.worker.engine import OK, Backend, Engine, answer
from tests.worker.h2_client import REQUEST, H2Client, RawClient, Reply

reactor: Any = global_reactor


class Http2Engine(Engine):
    """A worker that takes HTTP/2 with prior knowledge."""

    def start(self, ports: list[int], filters: tuple[Any, ...] = ()) -> None:
        super().start(ports, filters)
        self.factory.h2c = True

    async def meet(self, kind: type[H2Client] = H2Client) -> H2Client:
        client: H2Client = await ClientCreator(reactor, kind).connectTCP("127.0.0.1", self.worker.getHost().port)
        self.clients.append(client)  # type: ignore[arg-type]
        return client


class Http2Tests(Http2Engine):
    """Requests and their responses."""

    async def test_request(self) -> None:
        """A request becomes one of HTTP/1.1, its response one of HTTP/2."""
        self.serve(answer(OK.replace(b"\r\n\r\n", b"\r\nX-Y: z\r\nConnection: keep-alive\r\n\r\n")))
        client = await self.meet()
        reply = client.ask(("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2"), path="/p?q")
        await client.until(lambda: reply.over)
        self.assertEqual((reply.status, reply.content, reply.ended), (200, b"hi", True))
        self.assertEqual(reply.heads[0][b"x-y"], b"z")
        self.assertNotIn(b"connection", reply.heads[0])
        self.assertEqual(
            self.servers[0].asked,
            b"GET /p?q HTTP/1.1\r\nhost: a.example\r\nx-a: b\r\ncookie: a=1; c=2\r\nX-Forwarded-For: 127.0.0.1\r\n"
            b"X-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\nVia: 1.1 lbarray\r\n\r\n",
        )

    async def test_many_at_once(self) -> None:
        """Streams are answered as their back ends answer, not in their order."""

        def script(backend: Backend, data: bytes) -> None:
            number = int(data.split(b" ")[1][1:])
            octets = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % number
            reactor.callLater(0.05 if number == 0 else 0, backend.transport.write, octets)

        self.serve(script)
        client = await self.meet()
        replies = [client.ask(path=f"/{number}") for number in range(20)]
        await client.until(lambda: all(reply.over for reply in replies[1:]))
        self.assertFalse(replies[0].over)
        await client.until(lambda: replies[0].over)
        self.assertEqual([reply.content for reply in replies], [b"%02d" % number for number in range(20)])

    async def test_content_both_ways(self) -> None:
        """Content of a length, and of none: whole at the back end, and whole on its way back."""
        body = bytes(range(256)) * 200

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith((body, b"0\r\n\r\n")):
                octets = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                backend.transport.write(octets + body)

        self.serve(script)
        client = await self.meet()
        for lines in ((), (("content-length", str(len(body))),)):
            reply = client.ask(*lines, method="POST", ends=False)
            stream_id = max(client.replies)
            sent = 0
            while sent < len(body):
                room = min(client.h2.local_flow_control_window(stream_id), 16384, len(body) - sent)
                if room:
                    client.h2.send_data(stream_id, body[sent : sent + room])
                    sent += room
                    client.send()
                else:
                    await deferLater(reactor, 0.005)
            client.h2.end_stream(stream_id)
            client.send()
            await client.until(lambda reply=reply: reply.over)  # type: ignore[misc]
            self.assertEqual((reply.status, reply.content), (200, body))
        self.assertIn(b"Transfer-Encoding: chunked", self.servers[0].asked)
        self.assertTrue(self.servers[0].asked.endswith(body))

    async def test_trailers(self) -> None:
        """Trailer fields pass both ways, as gRPC needs them."""

        def script(backend: Backend, data: bytes) -> None:
            if self.servers[0].asked.endswith(b"0\r\nx-sum: 1\r\n\r\n"):
                backend.transport.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Grpc-Status\r\n\r\n"
                    b"2\r\nhi\r\n0\r\nGrpc-Status: 0\r\n\r\n"
                )

        self.serve(script)
        client = await self.meet()
        reply = client.ask(("te", "trailers"), method="POST", content=b"ab", ends=False)
        client.h2.send_headers(1, [("x-sum", "1"), ("authorization", "no")], end_stream=True)
        client.send()
        await client.until(lambda: reply.over)
        self.assertEqual((reply.content, reply.trailers), (b"hi", {b"grpc-status": b"0"}))
        self.assertIn(b"Connection: TE\r\nTE: trailers\r\n", self.servers[0].asked)

    async def test_head_and_no_content(self) -> None:
        """HEAD, 204 and 304 end with their header block."""

        def script(backend: Backend, data: bytes) -> None:
            if data.startswith(b"HEAD"):
                backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
            else:
                backend.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        self.serve(script)
        client = await self.meet()
        head, none = client.ask(method="HEAD"), client.ask(path="/none")
        await client.until(lambda: head.over and none.over)
        self.assertEqual((head.status, head.heads[0][b"content-length"], none.status), (200, b"99", 204))

    async def test_interim(self) -> None:
        """Interim responses come before the one that counts."""
        self.serve(answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK))
        client = await self.meet()
        reply = client.ask()
        await client.until(lambda: reply.over)
        self.assertEqual([int(head[b":status"]) for head in reply.heads], [103, 200])

    async def test_early_answer(self) -> None:
        """A response before the content is there: it arrives, the rest is read for a while and then declined."""
        self.serve(answer(OK))
        client = await self.meet()
        reply = client.ask(method="POST", content=b"some", ends=False)
        await client.until(lambda: reply.ended)
        sent = 0
        for _ in range(40):
            room = min(client.h2.local_flow_control_window(1), 10000)
            if room:
                client.h2.send_data(1, bytes(room))
                client.send()
                sent += room
            await deferLater(reactor, 0.005)
        self.assertGreater(sent, 100_000)
        for connection in self.factory.connections:
            connection._h2.streams[1].deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: reply.reset is not None)
        self.assertEqual((reply.content, reply.reset), (b"hi", ErrorCodes.NO_ERROR))
        again = client.ask()
        await client.until(lambda: again.over)
        self.assertEqual(again.status, 200)

    async def test_nobody(self) -> None:
        """Our own answers are whole responses."""
        self.start([])
        client = await self.meet()
        reply = client.ask()
        await client.until(lambda: reply.over)
        self.assertEqual((reply.status, reply.content), (503, b"503 Service Unavailable\n"))
        self.assertEqual(reply.heads[0][b"retry-after"], b"1")

    async def test_cut_short(self) -> None:
        """A response that breaks off resets its stream, and only that."""

        def script(backend: Backend, data: bytes) -> None:
            backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi")
            reactor.callLater(0.02, backend.transport.loseConnection)

        self.serve(script)
        client = await self.meet()
        reply = client.ask()
        await client.until(lambda: reply.over)
        self.assertEqual(reply.reset, ErrorCodes.INTERNAL_ERROR)
        self.assertFalse(client.closed)

    async def test_client_resets(self) -> None:
        """A stream that the client resets lets its back end go; the others go on."""
        self.serve(lambda backend, data: None if b"/slow" in data else backend.transport.write(OK))
        client = await self.meet()
        client.ask(path="/slow")
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        client.h2.reset_stream(1)
        client.send()
        reply = client.ask(path="/fast")
        await client.until(lambda: reply.over)
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.requests.outcomes, [Outcome.CLIENT_GONE, Outcome.ANSWERED])

    async def test_stop(self) -> None:
        """When the service stops, streams in hand are finished and then the connection ends."""

        def script(backend: Backend, data: bytes) -> None:
            reactor.callLater(0.05, backend.transport.write, OK)

        self.serve(script)
        client = await self.meet()
        client.ask()
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        self.factory.stopping = True
        for connection in list(self.factory.connections):
            connection.stop()
        await client.until(lambda: client.closed)
        # The library reads nothing behind a GOAWAY.
        self.assertIn(b"\0\0\2\0\1\0\0\0\1hi", client.got)
        self.assertEqual(client.goaway, 0)

    async def test_access_log(self) -> None:
        """Each stream has its line: the answered one, and the one that the client gave up."""
        records: list[Any] = []

        class Log:
            def add(self, record: Any) -> None:
                records.append(record)

        self.serve(lambda backend, data: None if b"/slow" in data else backend.transport.write(OK))
        self.factory.access_log = Log()
        client = await self.meet()
        reply = client.ask(path="/fast")
        await client.until(lambda: reply.over)
        client.ask(path="/slow")
        await deferLater(reactor, 0.02)
        client.transport.loseConnection()
        while self.factory.connections:
            await deferLater(reactor, 0.005)
        self.assertEqual(
            [(record.target, record.status, record.octets, record.version) for record in records],
            [(b"/fast", 200, 2, (2, 0)), (b"/slow", 499, 0, (2, 0))],
        )

    async def test_http_1_beside(self) -> None:
        """The same port still takes HTTP/1.1, even one that begins like the preface."""
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(b"P")
        await deferLater(reactor, 0.02)
        client.transport.write(b"OST / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.until(lambda: client.got.endswith(b"hi"))


class PaceTests(Http2Engine):
    """Flow control: nobody is read faster than somebody else takes it."""

    async def test_slow_client(self) -> None:
        """A stream whose window is closed stops its own back end, and no other stream."""
        size = 10_000_000

        def script(backend: Backend, data: bytes) -> None:
            if b"/large" in data:
                backend.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            else:
                backend.transport.write(OK)

        self.serve(script)
        client = await self.meet()
        client.h2.increment_flow_control_window(1_000_000)
        client.reads = False
        large = client.ask(path="/large")
        await client.until(lambda: len(large.content) == 65535)
        await deferLater(reactor, 0.1)
        connection = next(iter(self.factory.connections))._h2
        self.assertLess(connection.streams[1]._out_octets, 1_000_000)
        client.reads = True
        small = client.ask(path="/small")
        await client.until(lambda: small.over)
        self.assertEqual(small.content, b"hi")
        client.h2.acknowledge_received_data(65535, 1)
        client.send()
        await client.until(lambda: large.over)
        self.assertEqual(len(large.content), size)

    async def test_slow_back_end(self) -> None:
        """A back end that does not read closes its stream's window, and no other's."""

        def script(backend: Backend, data: bytes) -> None:
            if b"/slow" in data:
                backend.transport.pauseProducing()
            elif b"GET" in data:
                backend.transport.write(OK)

        self.limits = Limits(max_body=1 << 30)
        self.serve(script)
        client = await self.meet()
        client.ask(path="/slow", method="POST", ends=False)
        sent = 0
        idle = 0
        while idle < 20:
            room = min(client.h2.local_flow_control_window(1), 16384)
            if room:
                client.h2.send_data(1, bytes(room))
                client.send()
                sent += room
                idle = 0
            else:
                idle += 1
                await deferLater(reactor, 0.01)
        self.assertLess(sent, 20_000_000)
        reply = client.ask(path="/other")
        await client.until(lambda: reply.over)
        self.assertEqual(reply.content, b"hi")

    async def test_stalled_client(self) -> None:
        """A client that takes nothing of a response for too long loses that stream."""
        self.serve(
            lambda backend, data: backend.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + bytes(999999)
            )
        )
        client = await self.meet()
        client.reads = False
        reply = client.ask()
        await client.until(lambda: len(reply.content) == 65535)
        for connection in self.factory.connections:
            connection._h2.streams[1].deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: reply.over)
        self.assertEqual(reply.reset, ErrorCodes.INTERNAL_ERROR)
        self.assertEqual(self.counters.get("timeouts", "response_body"), 1)

    async def test_silent_back_end(self) -> None:
        """504 on the stream that waits."""
        self.serve(lambda backend, data: None)
        client = await self.meet()
        reply = client.ask()
        while not self.servers[0].asked:
            await deferLater(reactor, 0.005)
        for connection in self.factory.connections:
            connection._h2.streams[1].deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: reply.over)
        self.assertEqual(reply.status, 504)

    async def test_idle(self) -> None:
        """A connection without streams is told GOAWAY and closed after a while."""
        self.serve(answer(OK))
        client = await self.meet()
        reply = client.ask()
        await client.until(lambda: reply.over)
        await deferLater(reactor, 0.01)
        for connection in self.factory.connections:
            self.assertGreater(connection.deadline, reactor.seconds())
            connection.deadline = 0.0
        self.factory.sweep()
        await client.until(lambda: client.closed)
        self.assertEqual(client.goaway, 0)


class FloodTests(Http2Engine):
    """Attacks that cost the attacker nothing (RFC 9113 §10.5)."""

    async def calmed(self, *frames: Frame, times: int, kind: type[H2Client] = RawClient) -> None:
        """So many of these frames end the connection with ENHANCE_YOUR_CALM, and other clients notice nothing."""
        await self.calmed_by(b"".join(frame.serialize() for frame in frames), times=times, kind=kind)

    async def calmed_by(self, octets: bytes, *, times: int, kind: type[H2Client] = RawClient) -> None:
        """The same for frames that are octets already."""
        self.limits = Limits(max_head=2048, h2_streams=50)
        self.serve(answer(OK))
        client = await self.meet(kind)
        for _ in range(times):
            if client.closed:
                break
            client.transport.write(octets)
            await deferLater(reactor, 0)
        await client.until(lambda: client.closed)
        self.assertEqual(client.goaway, ErrorCodes.ENHANCE_YOUR_CALM)
        other = await self.meet()
        reply = other.ask()
        await other.until(lambda: reply.over)
        self.assertEqual(reply.status, 200)

    async def test_pings(self) -> None:
        """PING without end."""
        await self.calmed(*[PingFrame(0, b"12345678")] * 100, times=50)

    async def test_settings(self) -> None:
        """SETTINGS without end."""
        await self.calmed(*[SettingsFrame(0)] * 100, times=50)

    async def test_settings_in_one_frame(self) -> None:
        """The same in few frames of thousands of settings, each of which moves every stream's window."""
        many = head(16380, SETTINGS, 0, 0) + b"\0\x04\0\0\xff\xff" * 2730
        await self.calmed_by(many, times=2)

    async def test_acknowledgements(self) -> None:
        """What acknowledges nothing that was sent: PING and SETTINGS with ACK."""
        for frame in (PingFrame(0, b"12345678", flags=["ACK"]), SettingsFrame(0, flags=["ACK"])):
            await self.calmed(*[frame] * 100, times=50)

    async def test_behind_a_reset(self) -> None:
        """Streams that are reset already: header blocks and empty DATA for them."""
        client = RawClient()
        encoded = client.encoder.encode(REQUEST)
        opened = [
            HeadersFrame(1, encoded, flags=["END_HEADERS"]),
            WindowUpdateFrame(1, window_increment=2**31 - 1),  # which makes us reset it
        ]
        for frame in (DataFrame(1, b""), HeadersFrame(1, b"\x82", flags=["END_HEADERS"])):
            await self.calmed(*opened, *[frame] * 5000, times=1)

    async def test_priorities(self) -> None:
        """PRIORITY without end."""
        await self.calmed(*[PriorityFrame(1, depends_on=0)] * 100, times=50)

    async def test_empty_data(self) -> None:
        """Empty DATA without end."""
        encoded = RawClient().encoder.encode([*REQUEST[1:], (":method", "POST")])
        head = HeadersFrame(1, encoded, flags=["END_HEADERS"])
        await self.calmed(head, *[DataFrame(1, b"")] * 5000, times=1)

    async def test_continuations(self) -> None:
        """A header block that never ends (CVE-2024-27316)."""
        await self.calmed(HeadersFrame(1, b""), *[ContinuationFrame(1, b"x" * 100)] * 100, times=10)

    async def test_empty_continuations(self) -> None:
        """The same of nothing but frame heads."""
        await self.calmed(HeadersFrame(1, b""), *[ContinuationFrame(1, b"")] * 600, times=1)

    async def test_rapid_reset(self) -> None:
        """Streams that are opened to be reset (CVE-2023-44487)."""
        client = RawClient()
        frames: list[Frame] = []
        for number in range(300):
            encoded = client.encoder.encode(REQUEST)
            frames.append(HeadersFrame(1 + 2 * number, encoded, flags=["END_HEADERS", "END_STREAM"]))
            frames.append(RstStreamFrame(1 + 2 * number, error_code=8))
        await self.calmed(*frames, times=1)

    async def test_resets_that_we_are_made_to_send(self) -> None:
        """Streams that the client makes us reset count the same (CVE-2025-8671)."""
        client = RawClient()
        frames: list[Frame] = []
        for number in range(300):
            encoded = client.encoder.encode(REQUEST)
            frames.append(HeadersFrame(1 + 2 * number, encoded, flags=["END_HEADERS"]))
            frames.append(WindowUpdateFrame(1 + 2 * number, window_increment=2**31 - 1))
        await self.calmed(*frames, times=1)

    async def test_too_many_streams(self) -> None:
        """More streams than we allow at once are refused, so that the client may ask again; the others go on."""
        self.limits = Limits(h2_streams=10)
        self.serve(lambda backend, data: None)
        client = await self.meet(RawClient)
        for number in range(12):
            encoded = client.encoder.encode(REQUEST)
            client.frame(HeadersFrame(1 + 2 * number, encoded, flags=["END_HEADERS", "END_STREAM"]))
        await client.until(lambda: 23 in client.replies)
        resets = {stream_id: reply.reset for stream_id, reply in client.replies.items() if reply.over}
        self.assertEqual(resets, {21: ErrorCodes.REFUSED_STREAM, 23: ErrorCodes.REFUSED_STREAM})
        self.assertEqual(len(self.requests.heads), 10)

    async def test_refused_streams(self) -> None:
        """Going on regardless is a flood like others."""
        client = RawClient()
        frames: list[Frame] = []
        for number in range(300):
            encoded = client.encoder.encode([*REQUEST[1:], (":method", "POST")])
            frames.append(HeadersFrame(1 + 2 * number, encoded, flags=["END_HEADERS"]))
        await self.calmed(*frames, times=1)

    async def test_large_head(self) -> None:
        """A head beyond its limit is answered, one far beyond ends the connection (a bomb of HPACK)."""
        self.limits = Limits(max_head=2048)
        self.serve(answer(OK))
        client = await self.meet()
        reply = client.ask(("x", "y" * 2500))
        await client.until(lambda: reply.over)
        self.assertEqual(reply.status, 431)
        bomb = await self.meet(RawClient)
        encoded = bomb.encoder.encode(REQUEST) + bomb.encoder.encode([("x", "y" * 1000)]) + b"\xbe" * 900
        bomb.frame(HeadersFrame(1, encoded, flags=["END_HEADERS", "END_STREAM"]))
        await bomb.until(lambda: bomb.closed)
        self.assertEqual(len(self.requests.heads), 0)

    async def test_slow_head(self) -> None:
        """A header block that does not end in time."""
        self.limits = Limits(header_timeout_s=0.0)
        self.serve(answer(OK))
        client = await self.meet(RawClient)
        client.frame(HeadersFrame(1, b""))
        await deferLater(reactor, 0.05)
        self.factory.sweep()
        await client.until(lambda: client.closed)
        self.assertEqual(self.counters.get("timeouts", "request_head"), 1)


class ConformanceTests(Http2Engine):
    """What RFC 9113 says an endpoint MUST treat as an error, section by section."""

    BAD_STREAM = {
        "8.2.1 capitals in a name": [*REQUEST, ("X-A", "b")],
        "8.2.1 space in a name": [*REQUEST, ("x a", "b")],
        "8.2.1 colon in a name": [*REQUEST, ("x:a", "b")],
        "8.2.1 empty name": [*REQUEST, ("", "b")],
        "8.2.1 CR in a value": [*REQUEST, ("x", "a\rb")],
        "8.2.1 LF in a value": [*REQUEST, ("x", "a\nX-Injected: 1")],
        "8.2.1 NUL in a value": [*REQUEST, ("x", "a\0b")],
        "8.2.1 space around a value": [*REQUEST, ("x", " a")],
        "8.2.2 connection": [*REQUEST, ("connection", "close")],
        "8.2.2 transfer-encoding": [*REQUEST, ("transfer-encoding", "chunked")],
        "8.2.2 upgrade": [*REQUEST, ("upgrade", "websocket")],
        "8.2.2 keep-alive": [*REQUEST, ("keep-alive", "5")],
        "8.2.2 TE besides trailers": [*REQUEST, ("te", "deflate")],
        "8.3 unknown pseudo-header field": [*REQUEST, (":protocol-x", "y")],
        "8.3 pseudo-header field of responses": [*REQUEST, (":status", "200")],
        "8.3 pseudo-header field behind others": [*REQUEST[1:], ("x", "y"), REQUEST[0]],
        "8.3.1 method missing": REQUEST[1:],
        "8.3.1 scheme missing": [REQUEST[0], *REQUEST[2:]],
        "8.3.1 path missing": REQUEST[:3],
        "8.3.1 path empty": [*REQUEST[:3], (":path", "")],
        "8.3.1 path twice": [*REQUEST, (":path", "/")],
        "8.3.1 path with a space": [*REQUEST[:3], (":path", "/ HTTP/1.1\r\nX: y")],
        "8.3.1 absolute path": [*REQUEST[:3], (":path", "http://b.example/")],
        "8.3.1 host that is not the authority": [*REQUEST, ("host", "b.example")],
        "8.1.1 length without content": [*REQUEST, ("content-length", "3")],
        "8.1.1 signed length": [*REQUEST, ("content-length", "+3")],
        "8.1.1 two lengths": [*REQUEST, ("content-length", "0"), ("content-length", "0")],
    }

    async def test_bad_streams(self) -> None:
        """Malformed requests reset their streams; nothing reaches a back end, and the connection goes on."""
        self.serve(answer(OK))
        client = await self.meet(RawClient)
        wrong = []
        for place, (name, block) in enumerate(self.BAD_STREAM.items()):
            stream_id = 1 + 2 * place
            reply = client.replies[stream_id] = Reply()
            encoded = client.encoder.encode(block)
            client.frame(HeadersFrame(stream_id, encoded, flags=["END_HEADERS", "END_STREAM"]))
            await client.until(lambda reply=reply: reply.over or client.closed)  # type: ignore[misc]
            if (reply.reset, client.closed) != (ErrorCodes.PROTOCOL_ERROR, False):
                wrong.append((name, reply.reset, reply.ended, client.closed))
        self.assertEqual(wrong, [])
        self.assertEqual(self.servers[0].asked, b"")

    BAD_CONNECTION: dict[str, tuple[bytes, ErrorCodes]] = {
        "4.2 frame too large": (b"\0\x40\1\0\0\0\0\0\1" + bytes(16385), ErrorCodes.FRAME_SIZE_ERROR),
        "4.3 header block that is none": (
            HeadersFrame(1, b"\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
            ErrorCodes.COMPRESSION_ERROR,
        ),
        "5.1 DATA on an idle stream": (DataFrame(1, b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
        "5.1 RST_STREAM on an idle stream": (RstStreamFrame(1).serialize(), ErrorCodes.PROTOCOL_ERROR),
        "5.1 WINDOW_UPDATE on an idle stream": (
            WindowUpdateFrame(1, window_increment=1).serialize(),
            ErrorCodes.PROTOCOL_ERROR,
        ),
        "5.1 CONTINUATION on an idle stream": (ContinuationFrame(1, b"").serialize(), ErrorCodes.PROTOCOL_ERROR),
        "5.1.1 even stream": (b"\0\0\0\1\5\0\0\0\2", ErrorCodes.PROTOCOL_ERROR),
        "6.1 DATA on stream 0": (b"\0\0\1\0\0\0\0\0\0x", ErrorCodes.PROTOCOL_ERROR),
        "6.2 HEADERS on stream 0": (b"\0\0\0\1\4\0\0\0\0", ErrorCodes.PROTOCOL_ERROR),
        "6.4 RST_STREAM on stream 0": (b"\0\0\4\3\0\0\0\0\0\0\0\0\0", ErrorCodes.PROTOCOL_ERROR),
        "6.5 SETTINGS on a stream": (b"\0\0\0\4\0\0\0\0\1", ErrorCodes.PROTOCOL_ERROR),
        "6.5 SETTINGS of a wrong length": (b"\0\0\3\4\0\0\0\0\0abc", ErrorCodes.FRAME_SIZE_ERROR),
        "6.5 SETTINGS acknowledgement with content": (
            b"\0\0\6\4\1\0\0\0\0\0\1\0\0\0\0",
            ErrorCodes.FRAME_SIZE_ERROR,
        ),
        "6.5.2 ENABLE_PUSH of 2": (SettingsFrame(0, settings={2: 2}).serialize(), ErrorCodes.PROTOCOL_ERROR),
        "6.5.2 window beyond": (SettingsFrame(0, settings={4: 2**31}).serialize(), ErrorCodes.FLOW_CONTROL_ERROR),
        "6.5.2 frame size below": (SettingsFrame(0, settings={5: 100}).serialize(), ErrorCodes.PROTOCOL_ERROR),
        "6.6 PUSH_PROMISE from a client": (
            PushPromiseFrame(1, 2, b"", flags=["END_HEADERS"]).serialize(),
            ErrorCodes.PROTOCOL_ERROR,
        ),
        "6.7 PING on a stream": (b"\0\0\x08\6\0\0\0\0\x0112345678", ErrorCodes.PROTOCOL_ERROR),
        "6.7 PING of a wrong length": (b"\0\0\7\6\0\0\0\0\x001234567", ErrorCodes.FRAME_SIZE_ERROR),
        "6.8 GOAWAY on a stream": (b"\0\0\x08\7\0\0\0\0\1" + bytes(8), ErrorCodes.PROTOCOL_ERROR),
        "6.9 WINDOW_UPDATE of nothing": (b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", ErrorCodes.PROTOCOL_ERROR),
        "6.9 WINDOW_UPDATE of a wrong length": (b"\0\0\3\x08\0\0\0\0\0\0\0\1", ErrorCodes.FRAME_SIZE_ERROR),
        "6.9.1 window beyond": (
            WindowUpdateFrame(0, window_increment=2**31 - 1).serialize(),
            ErrorCodes.FLOW_CONTROL_ERROR,
        ),
        "6.10 another frame within a header block": (
            HeadersFrame(1, b"").serialize() + PingFrame(0, b"12345678").serialize(),
            ErrorCodes.PROTOCOL_ERROR,
        ),
        "6.10 CONTINUATION of another stream": (
            HeadersFrame(1, b"").serialize() + ContinuationFrame(3, b"").serialize(),
            ErrorCodes.PROTOCOL_ERROR,
        ),
    }

    async def test_bad_connections(self) -> None:
        """Each ends the connection, with its code where ours is not another that the RFC allows as well."""
        self.serve(answer(OK))
        wrong = []
        for name, (octets, code) in self.BAD_CONNECTION.items():
            client = await self.meet(RawClient)
            client.transport.write(octets)
            await client.until(lambda client=client: client.closed)  # type: ignore[misc]
            if client.goaway != code:
                wrong.append((name, client.goaway, code))
        self.assertEqual(wrong, [])
        self.assertEqual(self.servers[0].asked, b"")

    async def test_preface(self) -> None:
        """After something else than the preface and SETTINGS nothing is understood (§3.4)."""
        self.serve(answer(OK))
        client = await self.connect()
        client.transport.write(PREFACE + PingFrame(0, b"12345678").serialize())
        await client.until(lambda: client.closed)

    async def test_ignored(self) -> None:
        """Unknown frames, unknown settings, padding and priorities change nothing (§5.5, §6.5.2)."""
        self.serve(answer(OK))
        client = await self.meet()
        client.transport.write(b"\0\0\4\xfa\0\0\0\0\0abcd")
        client.frame(SettingsFrame(0, settings={0xF0: 7}))
        client.frame(PriorityFrame(5, depends_on=3))
        reply = client.ask()
        await client.until(lambda: reply.over)
        self.assertEqual(reply.status, 200)

    async def test_ping(self) -> None:
        """PING is acknowledged with what it carried (§6.7)."""
        self.serve(answer(OK))
        client = await self.meet()
        client.frame(PingFrame(0, b"whatever"))
        await client.until(lambda: PingFrame(0, b"whatever", flags=["ACK"]).serialize() in client.got)

    async def test_goaway(self) -> None:
        """A client that goes away still gets its responses (§6.8)."""
        self.serve(lambda backend, data: reactor.callLater(0.05, backend.transport.write, OK))
        client = await self.meet()
        reply = client.ask()
        client.frame(GoAwayFrame(0, last_stream_id=0))
        await client.until(lambda: reply.over)
        self.assertEqual(reply.content, b"hi")

    async def test_length_of_content(self) -> None:
        """Content that is not as long as it says is not passed off as whole (§8.1.1)."""
        self.serve(answer(OK))
        client = await self.meet()
        reply = client.ask(("content-length", "5"), method="POST", content=b"abc")
        await client.until(lambda: reply.over or client.closed)
        self.assertNotEqual(reply.status, 200)
