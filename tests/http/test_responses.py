"""Where responses begin and end, however TCP cuts them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.responses import ResponseParser, ResponseSink
from lbarray.testing import every_split

LIMITS = Limits(max_head=2048, max_body=1000)


class Responses(ResponseSink):
    """Writes down what a back end's responses are."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.content = b""

    def response_head(self, head: ResponseHead) -> None:
        self.seen.append((head.status, tuple(head.fields)))

    def response_body(self, data: bytes) -> None:
        self.content += data

    def response_trailers(self, fields: Fields) -> None:
        self.seen.append(("trailers", tuple(fields)))

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        self.seen.append(("switch", head.upgrade))
        self.content += data

    def response_end(self, reusable: bool) -> None:
        self.seen.append(("end", reusable))


class ResponseTests(SynchronousTestCase):
    """Responses, whole and in pieces."""

    def responses(self, pieces: list[bytes], method: bytes = b"GET", *, ends: bool = False) -> Responses:
        sink = Responses()
        parser = ResponseParser(sink, LIMITS)
        parser.expect(method)
        for piece in pieces:
            parser.feed(piece)
        if ends:
            self.assertTrue(parser.eof())
        return sink

    def check(self, octets: bytes, content: bytes, *, method: bytes = b"GET", reusable: bool = True) -> None:
        for pieces in every_split(octets):
            sink = self.responses(pieces, method)
            self.assertEqual(sink.content, content)
            self.assertEqual(sink.seen[-1], ("end", reusable), pieces)

    def test_content_length(self) -> None:
        """Content of a given length."""
        self.check(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi")

    def test_long_content(self) -> None:
        """Long content is the same however it is cut, and so is the response behind it; more than that spoils."""
        content = bytes(range(256)) * 400
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
        octets = head + content
        for size in (1_000, 4_096, 65_536, len(octets) - 1, len(octets)):
            sink = Responses()
            parser = ResponseParser(sink, LIMITS)
            for _ in range(2):
                parser.expect(b"GET")
                for at in range(0, len(octets), size):
                    parser.feed(octets[at : at + size])
            self.assertTrue(sink.content == content + content, size)
            self.assertEqual(sink.seen[1::2], [("end", True), ("end", True)])
        sink = Responses()
        parser = ResponseParser(sink, LIMITS)
        parser.expect(b"GET")
        parser.feed(octets[:30_000])
        parser.feed(octets[30_000:] + b"HTTP/1.1 200 OK\r\n")
        self.assertTrue(sink.content == content)
        self.assertEqual(sink.seen[-1], ("end", False))

    def test_long_content_cut_short(self) -> None:
        """A long content that ends early is no response."""
        sink = Responses()
        parser = ResponseParser(sink, LIMITS)
        parser.expect(b"GET")
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(50_000))
        parser.feed(bytes(10_000))
        self.assertFalse(parser.eof())
        self.assertEqual(len(sink.content), 60_000)

    def test_chunked(self) -> None:
        """Chunks, without their framing."""
        self.check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi")

    def test_closing(self) -> None:
        """A back end that will close is not used again."""
        self.check(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", b"hi", reusable=False)
        self.check(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", reusable=False)

    def test_no_content(self) -> None:
        """204 and 304 have none, whatever length they speak of."""
        self.check(b"HTTP/1.1 204 No Content\r\n\r\n", b"")
        self.check(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", b"")

    def test_interim(self) -> None:
        """Interim responses come before the one that counts."""
        for pieces in every_split(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"):
            sink = self.responses(pieces)
            self.assertEqual([event[0] for event in sink.seen], [100, 200, "end"])
            self.assertEqual(sink.content, b"hi")

    def test_head(self) -> None:
        """An answer to HEAD ends behind its head, and the connection goes on."""
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        self.check(octets, b"", method=b"HEAD")
        sink = Responses()
        parser = ResponseParser(sink, LIMITS)
        for _ in range(2):
            parser.expect(b"HEAD")
            parser.feed(octets)
        parser.expect(b"GET")
        parser.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        self.assertEqual(sink.content, b"hi")

    def test_until_the_end(self) -> None:
        """Without a length the end of the connection is the end of the content."""
        for pieces in every_split(b"HTTP/1.1 200 OK\r\n\r\nhi"):
            sink = self.responses(pieces, ends=True)
            self.assertEqual((sink.content, sink.seen[-1]), (b"hi", ("end", False)))

    def test_cut_short(self) -> None:
        """An end before the announced length, or within a head, completes nothing."""
        for octets in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
            b"HTTP/1.1 200 OK\r\nContent",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"",
        ):
            parser = ResponseParser(Responses(), LIMITS)
            parser.expect(b"GET")
            if octets:
                parser.feed(octets)
            self.assertFalse(parser.eof(), octets)

    def test_refused(self) -> None:
        """What is no response, or more than one."""
        for octets in (
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000,
        ):
            parser = ResponseParser(Responses(), LIMITS)
            parser.expect(b"GET")
            self.assertRaises(BadMessage, parser.feed, octets)

    def test_unasked(self) -> None:
        """A back end speaks when it is asked."""
        parser = ResponseParser(Responses(), LIMITS)
        self.assertRaises(BadMessage, parser.feed, b"HTTP/1.1 200 OK\r\n\r\n")

    def test_trailers(self) -> None:
        """Fields behind the content are told, but none that would change how it is read."""
        octets = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"
        octets += b"Grpc-Status: 0\r\nSet-Cookie: x\r\n\r\n"
        for pieces in every_split(octets):
            seen = self.responses(pieces).seen
            self.assertEqual(seen[1:], [("trailers", ((b"Grpc-Status", b"0"),)), ("end", True)])

    def test_switch(self) -> None:
        """A back end that was asked to may switch protocols; its first octets may come with the head."""
        octets = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        for pieces in every_split(octets):
            sink = Responses()
            parser = ResponseParser(sink, LIMITS)
            parser.expect(b"GET", upgrade=True)
            for piece in pieces[:-1]:
                parser.feed(piece)
            parser.feed(pieces[-1] + b"\x81\x00")
            self.assertEqual((sink.seen, sink.content), ([("switch", b"websocket")], b"\x81\x00"))

    def test_hop_by_hop(self) -> None:
        """Fields of this hop, and those that Connection names, stay here."""
        octets = (
            b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\nX: y\r\n\r\n"
        )
        seen = self.responses([octets]).seen
        self.assertEqual(seen[0], (200, ((b"X", b"y"), (b"Content-Length", b"0"))))
