"""Frames counted, header blocks read and written: HTTP/2 without a connection."""

from __future__ import annotations

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import ResponseHead
from lbarray.http.h2_frames import PREFACE, Flood, FrameMeter
from lbarray.http.h2_heads import Malformed, request_head, request_trailers, response_block
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.testing import every_split

SETTINGS = SettingsFrame(0).serialize()
REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"A.example:443"), (b":path", b"/a/../b?c")]


def meter(**more: float) -> FrameMeter:
    return FrameMeter(max_block=1000, **{"control_rate": 1.0, "reset_rate": 1.0, **more})


class FrameMeterTests(SynchronousTestCase):
    """What passes, and what is enough."""

    def test_in_pieces(self) -> None:
        """Frames are counted the same however TCP cuts them."""
        octets = PREFACE + SETTINGS + DataFrame(1, b"abc").serialize() + PingFrame(0, b"12345678").serialize() * 10
        for pieces in every_split(octets):
            counted = meter()
            for piece in pieces[:-1]:
                counted.feed(piece, 0.0)
            error = self.assertRaises(Flood, lambda c=counted, p=pieces: c.feed(p[-1] + PingFrame(0).serialize(), 0.0))
            self.assertEqual(error.why, "control_frames")

    def test_time_forgives(self) -> None:
        """Within the rate nothing adds up."""
        counted = meter()
        counted.feed(PREFACE + SETTINGS, 0.0)
        for second in range(100):
            counted.feed(PingFrame(0, b"12345678").serialize() + RstStreamFrame(1).serialize(), float(second))

    def test_content_is_free(self) -> None:
        """DATA with content, acknowledgements and the end of a stream cost nothing."""
        counted = meter()
        counted.feed(PREFACE + SETTINGS, 0.0)
        for frame in (
            DataFrame(1, b"x"),
            DataFrame(1, b"", flags=["END_STREAM"]),
            SettingsFrame(0, flags=["ACK"]),
            PingFrame(0, b"12345678", flags=["ACK"]),
        ):
            counted.feed(frame.serialize() * 100, 0.0)

    def test_header_block(self) -> None:
        """It knows when one is open."""
        counted = meter()
        counted.feed(PREFACE + SETTINGS + HeadersFrame(1, b"x").serialize(), 0.0)
        self.assertTrue(counted.in_block)
        counted.feed(HeadersFrame(1, b"x", flags=["END_HEADERS"]).serialize(), 0.0)
        self.assertFalse(counted.in_block)

    def test_preface(self) -> None:
        """SETTINGS come first (RFC 9113 §3.4)."""
        self.assertRaises(Flood, meter().feed, PREFACE + PingFrame(0, b"12345678").serialize(), 0.0)

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=100))
    def test_noise(self, octets: bytes) -> None:
        """Any octets pass or are too much; nothing else is raised."""
        try:
            meter().feed(PREFACE + SETTINGS + octets, 0.0)
        except Flood:
            pass


class RequestHeadTests(SynchronousTestCase):
    """A header block becomes a head in the same form as one of HTTP/1.1."""

    def test_normal_form(self) -> None:
        """Target and host in their one form, Host first, cookies in one line."""
        head = request_head([*REQUEST, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")], Limits(), ended=True)
        self.assertEqual((head.method, head.target, head.host), (b"GET", b"/b?c", b"a.example"))
        self.assertEqual(head.fields, [(b"host", b"a.example:443"), (b"x", b"y"), (b"cookie", b"a=1; b=2")])
        self.assertEqual((head.length, head.has_body, head.version), (0, False, (2, 0)))

    def test_lengths(self) -> None:
        """Known, unknown, or none."""
        self.assertEqual(request_head(REQUEST, Limits(), ended=False).length, None)
        told = request_head([*REQUEST, (b"content-length", b"05")], Limits(), ended=False)
        self.assertEqual((told.length, told.fields[-1]), (5, (b"content-length", b"5")))

    def test_refused(self) -> None:
        """What is well formed and still not served has a status."""
        limits = Limits(max_head=1000, max_body=10)
        for block, status in (
            ([(b":method", b"CONNECT"), (b":authority", b"a:1")], 501),
            ([(b":method", b"BREW"), *REQUEST[1:]], 501),
            ([(b":method", b"TRACE"), *REQUEST[1:]], 501),
            ([*REQUEST, (b"x", b"y" * 2000)], 431),
            ([*REQUEST, (b"content-length", b"11")], 413),
            ([*REQUEST, (b"expect", b"wonders")], 417),
            ([*REQUEST[:3], (b":path", b"/../x")], 400),
            ([*REQUEST[:2], (b":authority", b"a b"), REQUEST[3]], 400),
        ):
            error: BadMessage = self.assertRaises(BadMessage, request_head, block, limits, ended=False)
            self.assertEqual((error.answer, type(error)), (status, BadMessage), block)

    def test_claims(self) -> None:
        """What a client says of itself is dropped, what a trusted hop says of it is kept apart."""
        block = [*REQUEST, (b"x-forwarded-for", b"1.2.3.4")]
        self.assertEqual(request_head(block, Limits(), ended=True).forwarded, None)
        head = request_head(block, Limits(), ended=True, trusts_forwarded=True)
        self.assertEqual(head.forwarded, [(b"x-forwarded-for", b"1.2.3.4")])
        self.assertEqual(len(head.fields), 1)

    def test_trailers(self) -> None:
        """Only fields that may follow content, and no pseudo-header fields."""
        kept = request_trailers([(b"x", b"y"), (b"authorization", b"z")], Limits())
        self.assertEqual(kept, [(b"x", b"y")])
        self.assertRaises(Malformed, request_trailers, [(b":path", b"/")], Limits())

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=5))
    def test_noise(self, more: list[tuple[bytes, bytes]]) -> None:
        """Whatever fields there are, what is accepted can be written as HTTP/1.1 without ambiguity."""
        try:
            head = request_head([*REQUEST, *more], Limits(), ended=True)
        except BadMessage:
            return
        for name, value in head.fields:
            self.assertFalse({*b"\r\n\0: "} & set(name))
            self.assertFalse({*b"\r\n\0"} & set(value))


class ResponseBlockTests(SynchronousTestCase):
    """Responses as header blocks."""

    def test_lower_case(self) -> None:
        """Names in lower case, the status first, and encodable."""
        block = response_block(ResponseHead(200, [(b"X-Y", b" z ")]), [(b"A", b"b")], b"1.1 lbarray")
        self.assertEqual(block, [(b":status", b"200"), (b"x-y", b"z"), (b"a", b"b"), (b"via", b"1.1 lbarray")])
        self.assertTrue(Encoder().encode(block))
