"""Requests bent at random: whatever is accepted has one meaning, however it is cut and whoever reads it next."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields, RequestHead
from lbarray.http.heads import request_octets, trailer_octets
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.requests import RequestParser

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


class Sink:
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
            (head.method, head.target, head.authority, tuple(head.fields), body, tuple(trailers))
            for head, body, trailers in self.done
        ]


def read(pieces: list[bytes]) -> tuple[Sink, BadMessage | None]:
    sink = Sink()
    parser = RequestParser(sink, LIMITS)
    try:
        for piece in pieces:
            parser.feed(piece)
    except BadMessage as error:
        return sink, error
    return sink, None


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
        passed_on = b""
        for head, body, trailers in sink.done:
            octets, chunked = request_octets(head, b"", "a.example")
            passed_on += octets
            if chunked:
                passed_on += b"%x\r\n%b\r\n" % (len(body), body) if body else b""
                passed_on += trailer_octets(trailers)
            else:
                passed_on += body
        again, error = read([passed_on])
        self.assertIsNone(error)
        self.assertEqual(
            [(head.method, head.target, body) for head, body, _ in sink.done],
            [(head.method, head.target, body) for head, body, _ in again.done],
        )
