"""Floods counted, heads made of header blocks and the reverse: HTTP/2 without a connection."""

from __future__ import annotations

from hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import ResponseHead
from lbarray.http.h2_compression import encoder
from lbarray.http.h2_floods import Flood, FloodMeter
from lbarray.http.h2_heads import Malformed, request_head, request_trailers, response_block
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage

REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"A.example:443"), (b":path", b"/a/../b?c")]


class FloodMeterTests(SynchronousTestCase):
    """What passes, and what is enough."""

    def test_at_once(self) -> None:
        """Ten seconds' worth, and no more."""
        meter = FloodMeter(control_rate=1.0, reset_rate=2.0)
        meter.at(0.0)
        for _ in range(10):
            meter.spend()
        self.assertEqual(self.assertRaises(Flood, meter.spend).why, "control_frames")
        for _ in range(20):
            meter.reset()
        self.assertEqual(self.assertRaises(Flood, meter.reset).why, "resets")

    def test_time_forgives(self) -> None:
        """Within the rate nothing adds up."""
        meter = FloodMeter(control_rate=1.0, reset_rate=1.0)
        for second in range(100):
            meter.at(float(second))
            meter.spend()
            meter.reset()


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
        """The status first, names in lower case, values without white space around them."""
        head = ResponseHead(200, [(b"X-Y", b" z ")])
        block = encoder().encode(response_block(head, [(b"A", b"b")], via=True))
        read = [(name, value) for name, value in Decoder().decode(block, raw=True)]
        self.assertEqual(read, [(b":status", b"200"), (b"x-y", b"z"), (b"a", b"b"), (b"via", b"1.1 lbarray")])
