"""Where requests begin and end, and what is none, however TCP cuts them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields, RequestHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import RequestParser, RequestSink
from lbarray.testing import every_split

LIMITS = Limits(max_head=2048, max_body=1000)


class Requests(RequestSink):
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

    def request_trailers(self, fields: Fields) -> None:
        self.seen.append(("trailers", tuple(fields)))

    def request_end(self) -> None:
        self.seen.append(("end",))


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
        """Chunks with an extension; trailer fields behind them, but none that would change how the rest is read."""
        self.check(
            b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;q=1\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 1\r\nHost: b\r\nAuthorization: x\r\n\r\n",
            [
                (b"POST", b"/", b"a.example", (HOST,), True, True),
                ("body", b"hello"),
                ("trailers", ((b"X-Sum", b"1"),)),
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
        """It becomes the origin form, and its authority the Host (RFC 9112 §3.2.2)."""
        seen = requests([b"GET http://B.example:80/p HTTP/1.1\r\nHost: b.example:80\r\n\r\n"])
        self.assertEqual(seen[0][1:4], (b"/p", b"b.example", ((b"Host", b"b.example:80"),)))

    def test_upgrade_is_an_ordinary_request(self) -> None:
        """A protocol that we do not switch to is ignored; what follows is the next request."""
        upgrade = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
        for pieces in every_split(upgrade + GET):
            self.assertEqual([event[1] for event in requests(pieces) if len(event) > 2], [b"/", b"/x?y"])

    def test_content_behind_a_refused_upgrade(self) -> None:
        """Nobody switches with content under way: it stays content, and is not taken for the next request."""
        inner = b"GET /inner HTTP/1.1\r\nHost: a.example\r\n\r\n"
        for framing, content in (
            (b"Content-Length: %d" % len(inner), inner),
            (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)),
        ):
            upgrade = (
                b"POST / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: h2c\r\n%b\r\n\r\n" % framing
            )
            for pieces in every_split(upgrade + content + GET):
                seen = requests(pieces)
                self.assertEqual([event[1] for event in seen if len(event) > 2], [b"/", b"/x?y"])
                self.assertEqual(b"".join(bytes(event[1]) for event in seen if event[0] == "body"), inner)  # type: ignore[call-overload]

    def test_upgrade(self) -> None:
        """What follows a request to switch is held until it is known whose it is."""
        octets = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: x, WebSocket\r\n\r\n"
        for pieces in every_split(octets + b"\x81\x00"):
            sink = Requests()
            parser = RequestParser(sink, LIMITS, upgrades=frozenset([b"websocket"]))
            for piece in pieces:
                parser.feed(piece)
            self.assertEqual(sink.seen, [(b"GET", b"/", b"a.example", (HOST,), True, False), ("end",)])
            self.assertEqual(parser.switch(), b"\x81\x00")
        for pieces in every_split(octets + GET):
            sink = Requests()
            parser = RequestParser(sink, LIMITS, upgrades=frozenset([b"websocket"]))
            for piece in pieces:
                parser.feed(piece)
            self.assertEqual(len(sink.seen), 2)
            parser.go_on()
            self.assertEqual([event[1] for event in sink.seen if len(event) > 2], [b"/", b"/x?y"])

    def test_hop_by_hop(self) -> None:
        """Fields of this hop, and those that Connection names, stay here; nobody names Host away."""
        octets = (
            b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close, X-Hop, Host\r\nKeep-Alive: 5\r\nX-Hop: 1\r\n"
            b"TE: trailers\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=x\r\nX-End: 2\r\n\r\n"
        )
        self.check(octets, [(b"GET", b"/", b"a.example", (HOST, (b"X-End", b"2")), False, False), ("end",)])

    def test_lengths_in_one_form(self) -> None:
        """Leading zeros and white space around a length go no further."""
        for value in (b"5", b"005", b"\t5 "):
            octets = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length:%b\r\n\r\nhello" % value
            self.assertEqual(requests([octets])[0][3], (HOST, (b"Content-Length", b"5")))

    def test_head_behind_a_long_body(self) -> None:
        """Only a head's own octets count against its limit, not the content in front of it."""
        octets = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4000\r\n\r\n" + bytes(4000)
        limits = Limits(max_head=2048, max_body=5000)
        self.assertEqual(len(requests([octets + GET[:-2], GET[-2:]], limits)), 5)

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
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
            (b"Transfer-Encoding : chunked",),
            (b"Transfer-Encoding: x\r\n chunked",),
            (b"Transfer-Encoding: \x0bchunked",),
            (b"Content-Length: 3\x0b",),
            (b"Content-Length: 3 4",),
            (b"Content-Length:\r\n 3",),
            (b"Content-Length : 3",),
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
        for body in (
            b"3;\nabc",
            b"3;a\rb\r\nabc",
            b"0x3\r\nabc\r\n",
            b"-1\r\n",
            b"3 \r\nabc\r\n",
            b"3\nabc\r\n",
            b"3\r\nabcXX",
            b"g\r\n",
        ):
            self.assertEqual(self.refused(head + body)[1], 400, body)

    def test_host(self) -> None:
        """HTTP/1.1 has exactly one Host, and it names a host (RFC 9112 §3.2)."""
        self.assertEqual(self.refused(b"GET / HTTP/1.1\r\n\r\n"), ("host", 400))
        self.assertEqual(self.refused(self.head(b"Host: b.example")), ("host", 400))
        for host in (
            b"",
            b"a b",
            b"a/b",
            b"user@a",
            b"a:b",
            b"a:0",
            b"a:70000",
            b"[::1",
            b"a\\b",
            b"a,b",
            b"a%2eb",
            b"a?b",
        ):
            self.assertEqual(self.refused(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"), ("host", 400), host)
        other = b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n"
        self.assertEqual(self.refused(other), ("host", 400))

    def test_targets(self) -> None:
        """Forms that no request to a site has."""
        for target in (
            b"x",
            b"/a#b",
            b"*",
            b"ftp://a.example/",
            b"/a\\b",
            b"/%",
            b"/%zz",
            b"/a%00",
            b"/../a",
            b"/a/..;/b",
        ):
            self.assertEqual(self.refused(self.head(start=b"GET %b HTTP/1.1" % target))[1], 400, target)

    def test_methods(self) -> None:
        """CONNECT, TRACE and what belongs to other protocols: 501."""
        for start in (
            b"CONNECT a.example:1 HTTP/1.1",
            b"TRACE / HTTP/1.1",
            b"DESCRIBE / RTSP/1.0",
            b"SOURCE / ICE/1.0",
        ):
            self.assertEqual(self.refused(self.head(start=start)), ("method", 501), start)

    def test_expectations(self) -> None:
        """Only 100-continue is known (RFC 9110 §10.1.1)."""
        self.assertEqual(self.refused(self.head(b"Expect: wonders")), ("expectation", 417))

    def test_circles(self) -> None:
        """A request that has come through here again and again is not sent round once more."""
        self.assertEqual(self.refused(self.head(*[b"Via: 1.1 lbarray"] * 4)), ("loop", 508))

    def test_no_further(self) -> None:
        """Max-Forwards counts down, and ends here when it is spent (RFC 9110 §7.6.2)."""
        seen = requests([self.head(b"Max-Forwards: 3", start=b"OPTIONS * HTTP/1.1")])
        self.assertIn((b"Max-Forwards", b"2"), seen[0][3])
        self.assertEqual(self.refused_once(self.head(b"Max-Forwards: 0", start=b"OPTIONS * HTTP/1.1")), 501)

    def test_endless_framing(self) -> None:
        """Chunks that are nearly all extension, and trailers without end, are refused."""
        limits = Limits(max_head=2048, max_body=100_000)
        for begin, again, count, status in (
            (b"", b"1;" + b"x" * 2000 + b"\r\na\r\n", 100, 400),
            (b"0\r\n", b"X: y\r\n", 1000, 431),
            (b"0\r\nX: ", b"y" * 1000, 1000, 400),
        ):
            pieces = [self.head(b"Transfer-Encoding: chunked") + begin, *[again] * count]
            error: BadMessage = self.assertRaises(BadMessage, requests, pieces, limits)
            self.assertEqual(error.answer, status)

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
