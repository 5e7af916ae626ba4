"""Requests bent at random: whatever is accepted has one meaning, however it is cut and whoever reads it next."""

from __future__ import annotations

from unittest import SkipTest

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields, RequestHead, ResponseHead
from lbarray.http.heads import request_octets, trailer_octets
from lbarray.http.limits import Limits
from lbarray.http.plain_heads import scanner
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import RequestParser, RequestSink
from lbarray.http.responses import ResponseParser, ResponseSink

LIMITS = Limits(max_head=4096, max_body=10000)

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"POST /a/../b?c HTTP/1.1", b"PUT /%61 HTTP/1.1", b"GET http://a.example/x HTTP/1.1",
        b"GET / HTTP/1.0", b"Host: a.example", b"Host: b", b"Content-Length: 5", b"Content-Length: 05",
        b"Content-Length: 5, 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x", b"Transfer-Encoding : chunked",
        b"Connection: close", b"Connection: keep-alive, X-Hop", b"Connection: upgrade", b"Upgrade: h2c", b"X-Hop: 1",
        b" folded", b"X: \x00", b"X: y\rZ: w", b"X: y\nZ: w", b"Expect: 100-continue", b"", b"", b"", b"hello", b"5",
        b"0", b"5;x=y", b"X-Trailer: t", b"GET /next HTTP/1.1",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""])


class Sink(RequestSink):
    """Requests with all that belongs to them."""

    def __init__(self) -> None:
        self.done: list[tuple[RequestHead, bytes, Fields]] = []
        self._head: RequestHead | None = None
        self._body = b""
        self._trailers: Fields = []

    def request_head(self, head: RequestHead, keep_alive: bool) -> None:
        self._head, self._body, self._trailers = head, b"", []

    def request_body(self, data: bytes) -> None:
        self._body += data

    def request_trailers(self, fields: Fields) -> None:
        self._trailers = list(fields)

    def request_end(self) -> None:
        assert self._head is not None
        self.done.append((self._head, self._body, self._trailers))

    def shown(self) -> list[tuple[object, ...]]:
        return [
            (
                (head.method, head.target, head.authority, head.host, tuple(head.fields), body, tuple(trailers)),
                (head.version, head.length, head.has_body, head.upgrade, head.te_trailers, head.forwarded),
            )
            for head, body, trailers in self.done
        ]


def read(pieces: list[bytes], *, compiled: bool = True) -> tuple[Sink, BadMessage | None]:
    sink = Sink()
    parser = RequestParser(sink, LIMITS, trusts_forwarded=True, compiled=compiled)
    try:
        for piece in pieces:
            parser.feed(piece)
    except BadMessage as error:
        return sink, error
    return sink, None


PLAIN = st.sampled_from(
    [
        b"Host: a.example", b"Host: A.example:80", b"Host:", b"accept: */*", b"X-Y:\tz ", b"X-Y: \xff\t1", b"X Y: z",
        b"x-forwarded-for: 1.2.3.4", b"Connection: Keep-Alive", b"Connection: close", b"Keep-Alive: 5", b"X:", b" x",
        b"Client-Cert: :x:", b"Content-Length: 0", b"Content-Length: 5", b"Via: 1.1 a", b"Cookie: a=b", b": x",
        b"X: \x7f",
    ]
)  # fmt: skip
FIRST = st.sampled_from(
    [
        b"GET / HTTP/1.1", b"POST /a/../%61?b=\xc3 HTTP/1.1", b"BREW / HTTP/1.1", b"GET * HTTP/1.1", b"get / HTTP/1.1",
        b"GET /x#y HTTP/1.1", b"CONNECT /a HTTP/1.1", b"GET  / HTTP/1.1", b"DELETE /../x HTTP/1.1", b"HEAD /a HTTP/1.0",
        b"OPTIONS /\x7f HTTP/1.1", b"GET /" + b"x" * 5000 + b" HTTP/1.1",
    ]
)  # fmt: skip
#: Requests that are good, and octets that are put in place of some of theirs.
GOOD = [
    b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nConnection: keep-alive\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: 5\r\nX: y\r\n\r\nhello",
    b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HEAD http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: X\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
BENT = st.binary(max_size=2) | st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b"%", b"\x80", b",", b"0"]
)
STATUS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.1 404 Not\tFound \xff", b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No Content", b"HTTP/1.1 103 Early Hints", b"HTTP/1.1 304 x", b"HTTP/1.1 2000 x",
        b"HTTP/1.1 099 x",
    ]
)  # fmt: skip
RESPONSE_LINES = st.sampled_from(
    [
        b"Content-Length: 5", b"Content-Length: 5", b"Content-Length: 05", b"Content-Length: x", b"content-length: 0",
        b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Connection: close", b"Connection: X-Y", b"X-Y: z",
        b"Via: 1.1 b", b"X-Forwarded-For: q", b"Host: a", b"Upgrade: x", b"Proxy-Authenticate: x", b"Keep-Alive: 5",
        b"X:",
    ]
)  # fmt: skip


def passed_on(sink: Sink) -> bytes:
    """What goes to a back end of the requests that were read, one behind the other."""
    octets = b""
    for head, body, trailers in sink.done:
        written, chunked = request_octets(head, b"", "a.example")
        octets += written
        if chunked:
            octets += b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            octets += trailer_octets(trailers)
        else:
            octets += body
    return octets


class ResponseHeard(ResponseSink):
    """A sink of responses."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.body = b""

    def response_head(self, head: ResponseHead) -> None:
        self.told.append((head.status, head.reason, tuple(head.fields), head.version, head.has_length, head.upgrade))

    def response_body(self, data: bytes) -> None:
        self.body += data

    def response_trailers(self, fields: Fields) -> None:
        self.told.append(tuple(fields))

    def response_end(self, reusable: bool) -> None:
        self.told.append(reusable)

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        self.told.append("switch")


def read_response(octets: bytes, size: int, *, compiled: bool) -> tuple[object, ...]:
    """What was told, the content, and whether that failed. A connection is not used again, whether that
    was told with the end of the response or is found by the octets behind it."""
    heard = ResponseHeard()
    parser = ResponseParser(heard, LIMITS, compiled=compiled)
    parser.expect(b"GET")
    failed = False
    try:
        for at in range(0, len(octets), size):
            if heard.told[-1:] == [False]:
                return (heard.told, heard.body, False)  # it is closed, nobody reads any more
            parser.feed(octets[at : at + size])
    except BadMessage:
        failed = True
    failed = failed or parser.eof()
    if failed and heard.told[-1:] == [True]:
        heard.told[-1] = failed = False
    return (heard.told, heard.body, failed)


class TwoReadersTests(SynchronousTestCase):
    """Plain heads are read in C, all others by llhttp: who reads one makes no difference."""

    def setUp(self) -> None:
        if scanner is None:
            raise SkipTest("lbarray.http._heads is not built here")

    @settings(deadline=None, max_examples=600)
    @given(st.lists(st.tuples(FIRST, st.lists(PLAIN, max_size=5), ENDS), min_size=1, max_size=3))
    @example([(b"GET / HTTP/1.1", [b"X-Y: \xff\t1"], b"\r\n"), (b"BREW / HTTP/1.1", [], b"\r\n")])
    def test_requests(self, requests: list[tuple[bytes, list[bytes], bytes]]) -> None:
        """The same requests, and a refusal where there was one."""
        octets = b"".join(
            first + b"\r\nHost: b.example\r\n" + b"".join(line + b"\r\n" for line in lines) + end
            for first, lines, end in requests
        )
        plain, error = read([octets])
        other, other_error = read([octets], compiled=False)
        self.assertEqual(plain.shown(), other.shown())
        self.assertEqual(error and (error.why, error.answer), other_error and (other_error.why, other_error.answer))

    @settings(deadline=None, max_examples=400)
    @given(st.lists(st.tuples(LINES, ENDS), min_size=2, max_size=14))
    def test_anything(self, lines: list[tuple[bytes, bytes]]) -> None:
        """The same of lines in any order."""
        octets = b"".join(line + end for line, end in lines)
        plain, error = read([octets])
        other, other_error = read([octets], compiled=False)
        self.assertEqual((plain.shown(), error and error.why), (other.shown(), other_error and other_error.why))

    @settings(deadline=None, max_examples=600)
    @given(
        STATUS,
        st.lists(RESPONSE_LINES, max_size=4),
        ENDS,
        st.sampled_from([b"", b"hello", b"hel", b"hello!"]),
        st.integers(20, 99),
    )
    def test_responses(self, status: bytes, lines: list[bytes], end: bytes, content: bytes, size: int) -> None:
        """The same responses, whole or cut, with too little content and with too much."""
        octets = status + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + end + content
        self.assertEqual(read_response(octets, size, compiled=True), read_response(octets, size, compiled=False))

    @settings(deadline=None, max_examples=600)
    @given(st.data())
    def test_bent(self, data: st.DataObject) -> None:
        """The same requests, refused or not, when any octets are changed, wherever TCP cuts."""
        octets = bytearray(b"".join(data.draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3))))
        for _ in range(data.draw(st.integers(0, 3))):
            place = data.draw(st.integers(0, len(octets)))
            octets[place : place + data.draw(st.integers(0, 2))] = data.draw(BENT)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=4)))
        pieces = [bytes(octets[at:to]) for at, to in zip([0, *cuts], [*cuts, len(octets)], strict=True) if to > at]
        outcomes = []
        for some in ([bytes(octets)], pieces):
            for compiled in (True, False):
                sink, error = read(some, compiled=compiled)
                outcomes.append((sink.shown(), error is not None))
        self.assertEqual(outcomes, [outcomes[0]] * 4)

    def test_used(self) -> None:
        """Most messages are plain."""
        assert scanner is not None
        self.assertIsNotNone(scanner.request(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", 0))
        self.assertIsNotNone(scanner.response(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhe"))


class FuzzTests(SynchronousTestCase):
    """Lines in any order with any ends."""

    @settings(deadline=None, max_examples=400)
    @given(st.lists(st.tuples(LINES, ENDS), min_size=2, max_size=14), st.integers(1, 40))
    def test_cuts(self, lines: list[tuple[bytes, bytes]], size: int) -> None:
        """The same requests, the same refusal, wherever TCP cuts."""
        octets = b"".join(line + end for line, end in lines)
        whole, error = read([octets])
        cut, cut_error = read([octets[at : at + size] for at in range(0, len(octets), size)])
        self.assertEqual(whole.shown(), cut.shown())
        self.assertEqual(error is None, cut_error is None)

    @settings(deadline=None, max_examples=400)
    @given(st.lists(st.tuples(LINES, ENDS), min_size=2, max_size=14))
    def test_passed_on(self, lines: list[tuple[bytes, bytes]]) -> None:
        """What goes on to the back end, read again, is the same requests with the same content, and nothing besides."""
        sink, _ = read([b"".join(line + end for line, end in lines)])
        again, error = read([passed_on(sink)])
        self.assertIsNone(error)
        self.assertEqual(
            [(head.method, head.target, body) for head, body, _ in sink.done],
            [(head.method, head.target, body) for head, body, _ in again.done],
        )
