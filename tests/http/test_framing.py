"""Where messages begin and end, however TCP cuts them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.http.framing import RequestParser, ResponseParser
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.testing import every_split

LIMITS = Limits(max_head=2048, max_body=1000)


class Requests:
    """Writes down what a client's requests are."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        self.seen.append((head.method, head.target, head.host, tuple(head.fields), keep_alive, head.has_body))

    def request_body(self, data: bytes) -> None:
        if self.seen and self.seen[-1][0] == "body":
            self.seen[-1] = ("body", bytes(self.seen[-1][1]) + data)  # type: ignore[call-overload]
        else:
            self.seen.append(("body", data))

    def request_end(self) -> None:
        self.seen.append(("end",))


class Responses:
    """Writes down what a back end's responses are."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self.content = b""

    def response_head(self, head: ResponseHead) -> None:
        self.seen.append((head.status, tuple(head.fields)))

    def response_body(self, data: bytes) -> None:
        self.content += data

    def response_end(self, reusable: bool) -> None:
        self.seen.append(("end", reusable))


def requests(pieces: list[bytes], limits: Limits = LIMITS) -> list[tuple[object, ...]]:
    sink = Requests()
    parser = RequestParser(sink, limits)
    for piece in pieces:
        parser.feed(piece)
    return sink.seen


HOST = (b"Host", b"a.example")
GET = b"GET /x?y HTTP/1.1\r\nHost: a.example\r\n\r\n"


class RequestTests(SynchronousTestCase):
    """Good requests."""

    def check(self, octets: bytes, wanted: list[tuple[object, ...]]) -> None:
        for pieces in every_split(octets):
            self.assertEqual(requests(pieces), wanted)

    def test_get(self) -> None:
        """The plainest request."""
        self.check(GET, [(b"GET", b"/x?y", b"a.example", (HOST,), True, False), ("end",)])

    def test_content_length(self) -> None:
        """Content of a given length."""
        self.check(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
            [
                (b"POST", b"/", b"a.example", (HOST, (b"Content-Length", b"5")), True, True),
                ("body", b"hello"),
                ("end",),
            ],
        )

    def test_chunked(self) -> None:
        """Chunks with an extension, and a trailer field, which goes no further."""
        self.check(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;q=1\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
            [
                (b"POST", b"/", b"a.example", (HOST, (b"Transfer-Encoding", b"chunked")), True, True),
                ("body", b"hello"),
                ("end",),
            ],
        )

    def test_pipelined(self) -> None:
        """Two requests in one segment are two requests."""
        one: list[tuple[object, ...]] = [(b"GET", b"/x?y", b"a.example", (HOST,), True, False), ("end",)]
        self.check(GET + GET, one + one)

    def test_http_1_0(self) -> None:
        """It needs no Host and ends its connection."""
        self.check(b"GET / HTTP/1.0\r\n\r\n", [(b"GET", b"/", b"", (), False, False), ("end",)])

    def test_absolute_form(self) -> None:
        """Its authority wins over Host (RFC 9112 §3.2.2)."""
        seen = requests([b"GET http://B.example:80/p HTTP/1.1\r\nHost: a.example\r\n\r\n"])
        self.assertEqual(seen[0][1:3], (b"/p", b"b.example"))

    def test_upgrade_is_an_ordinary_request(self) -> None:
        """A protocol that we do not switch to is ignored; what follows is the next request."""
        upgrade = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        for pieces in every_split(upgrade + GET):
            self.assertEqual([event[1] for event in requests(pieces) if len(event) > 2], [b"/", b"/x?y"])

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 30))
    def test_any_content(self, chunks: list[bytes], size: int) -> None:
        """Content of any octets arrives whole, whatever the pieces."""
        octets = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
        octets += b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        seen = requests([octets[at : at + size] for at in range(0, len(octets), size)])
        content = b"".join(bytes(event[1]) for event in seen if event[0] == "body")  # type: ignore[call-overload]
        self.assertEqual(content, b"".join(chunks))
        self.assertEqual(seen[-1], ("end",))


class RefusedRequestTests(SynchronousTestCase):
    """Requests that two readers might understand differently never go further."""

    def refused(self, octets: bytes) -> tuple[str, int]:
        """Why and with what status: the same however it is cut, and no request complete."""
        answers = set()
        for pieces in every_split(octets):
            sink = Requests()
            parser = RequestParser(sink, LIMITS)
            try:
                for piece in pieces:
                    parser.feed(piece)
                self.fail(f"{pieces} was accepted as {sink.seen}")
            except BadMessage as error:
                answers.add((error.why, error.answer))
            self.assertNotIn(("end",), sink.seen)
        self.assertEqual(len(answers), 1, answers)
        return answers.pop()

    def head(self, *lines: bytes, start: bytes = b"POST / HTTP/1.1") -> bytes:
        return b"\r\n".join([start, b"Host: a.example", *lines, b"", b""])

    def test_smuggling(self) -> None:
        """Everything by which two parsers could disagree where the content ends (RFC 9112 §11.2)."""
        for lines in (
            (b"Content-Length: 3", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Content-Length: 3"),
            (b"Content-Length: 3", b"Content-Length: 4"),
            (b"Content-Length: 3", b"Content-Length: 3"),
            (b"Content-Length: 3, 3",),
            (b"Content-Length: +3",),
            (b"Content-Length: 0x3",),
            (b"Content-Length:",),
            (b"Transfer-Encoding: chunked, identity",),
        ):
            self.assertEqual(self.refused(self.head(*lines))[1], 400, lines)

    def test_transfer_codings(self) -> None:
        """Only chunked, only once, only in HTTP/1.1."""
        self.assertEqual(self.refused(self.head(b"Transfer-Encoding: gzip, chunked")), ("transfer_coding", 501))
        self.assertEqual(self.refused(self.head(b"Transfer-Encoding: xchunked")), ("transfer_coding", 501))
        old = self.head(b"Transfer-Encoding: chunked", start=b"POST / HTTP/1.0")
        self.assertEqual(self.refused(old), ("transfer_coding", 400))

    def test_field_syntax(self) -> None:
        """Space before the colon, folded lines, lone CR or LF, control characters."""
        for line in (b"X : y", b"X: y\r\n z", b"X: a\rb", b"X: a\nb", b"X: a\0b", b"X: a\x01b", b" X: y", b"X\x80: y"):
            self.assertEqual(self.refused(self.head(line))[1], 400, line)

    def test_chunk_syntax(self) -> None:
        """Sizes that are no sizes, chunks that end elsewhere."""
        head = self.head(b"Transfer-Encoding: chunked")
        for body in (b"0x3\r\nabc\r\n", b"-1\r\n", b"3 \r\nabc\r\n", b"3\nabc\r\n", b"3\r\nabcXX", b"g\r\n"):
            self.assertEqual(self.refused(head + body)[1], 400, body)

    def test_host(self) -> None:
        """HTTP/1.1 has exactly one Host, and it names a host (RFC 9112 §3.2)."""
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\n\r\n"), ("host", 400))
        self.assertEqual(self.refused(self.head(b"Host: b.example")), ("host", 400))
        for host in (b"a b", b"a/b", b"user@a", b"a:b", b"[::1", b"a\\b"):
            self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"), ("target", 400), host)

    def test_targets(self) -> None:
        """Forms that no request to a site has."""
        for start in (b"GET x HTTP/1.1", b"GET /a#b HTTP/1.1", b"GET * HTTP/1.1", b"CONNECT a:1 HTTP/1.1"):
            self.assertEqual(self.refused(self.head(start=start))[1], 400, start)

    def test_versions(self) -> None:
        """What is not HTTP/1 says so."""
        self.assertEqual(self.refused(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")[1], 505)
        self.assertEqual(self.refused(b"GET /\r\n\r\n")[1], 505)

    def test_large_head(self) -> None:
        """A head beyond its limit is refused, complete or not."""
        self.assertEqual(self.refused_once(self.head(b"X: " + b"y" * 3000)), 431)
        self.assertEqual(self.refused_once(b"GET / HTTP/1.1\r\nX: " + b"y" * 3000), 431)
        self.assertEqual(self.refused_once(self.head(*[b"X: y"] * 250)), 431)

    def test_large_body(self) -> None:
        """Content beyond its limit is refused, announced or not."""
        self.assertEqual(self.refused_once(self.head(b"Content-Length: 1001")), 413)
        self.assertEqual(self.refused_once(self.head(b"Content-Length: " + b"9" * 25)), 413)
        chunked = self.head(b"Transfer-Encoding: chunked") + (b"ff\r\n" + b"x" * 255 + b"\r\n") * 4
        self.assertEqual(self.refused_once(chunked), 413)

    def refused_once(self, octets: bytes) -> int:
        error: BadMessage = self.assertRaises(BadMessage, requests, [octets])
        return error.answer

    def test_stays_refused(self) -> None:
        """After a refusal nothing more is understood."""
        parser = RequestParser(Requests(), LIMITS)
        self.assertRaises(BadMessage, parser.feed, b"\0\0\r\n\r\n")
        self.assertRaises(BadMessage, parser.feed, GET)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=200))
    def test_noise(self, octets: bytes) -> None:
        """Any octets are requests or refused; nothing else is raised."""
        try:
            requests([octets])
        except BadMessage as error:
            self.assertGreaterEqual(error.answer, 400)


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
