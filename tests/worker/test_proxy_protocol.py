"""The PROXY protocol: every header however it is cut, and nothing else."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.testing import every_split
from lbarray.worker.proxy_protocol import SIGNATURE, BadProxyHeader, Proxied, ProxyHeader, proxy_header

V4 = ("192.0.2.1", 51000), ("192.0.2.2", 443)
V6 = ("2001:db8::1", 51000), ("2001:db8::2", 443)


def read(pieces: list[bytes]) -> tuple[Proxied | None, bytes]:
    """The header in these pieces, and what follows it."""
    header = ProxyHeader()
    rest = b""
    for piece in pieces:
        rest += piece[header.feed(piece) :] if header.result is None else piece
    return header.result, rest


class ReadTests(SynchronousTestCase):
    """Reading."""

    def test_every_header_in_pieces(self) -> None:
        """Both versions and both families, however TCP cuts them; what follows is left alone."""
        for version in (1, 2):
            for source, destination in (V4, V6):
                octets = proxy_header(version, source, destination) + b"GET /"
                for pieces in every_split(octets):
                    self.assertEqual(read(pieces), (Proxied(source, destination), b"GET /"))

    def test_extensions_are_passed_over(self) -> None:
        """TLVs behind the addresses belong to the header (§2.2.1)."""
        octets = proxy_header(2, *V4)
        octets = octets[:14] + struct.pack("!H", 12 + 7) + octets[16:] + b"\4\0\4abcd"
        for pieces in every_split(octets + b"\x16\x03"):
            self.assertEqual(read(pieces), (Proxied(*V4), b"\x16\x03"))

    def test_own_connections_of_the_proxy(self) -> None:
        """LOCAL and UNKNOWN name nobody: the connection's own address counts."""
        for octets in (proxy_header(1, None, None), proxy_header(2, None, None), b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n"):
            self.assertEqual(read([octets + b"x"]), (Proxied(), b"x"))

    def test_what_is_no_header(self) -> None:
        """HTTP, TLS, a line without end, wrong words, wrong families, other versions: all told apart."""
        for octets, why in (
            (b"GET / HTTP/1.1\r\n", "no_signature"),
            (b"\x16\x03\x01\x02\x00", "no_signature"),
            (b"PROXY TCP4 " + b"1" * 100, "too_long"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 51000\r\n", "syntax"),
            (b"PROXY TCP4 192.0.2.1  192.0.2.2 51000 443\r\n", "syntax"),
            (b"PROXY UDP4 192.0.2.1 192.0.2.2 51000 443\r\n", "syntax"),
            (b"PROXY TCP4 2001:db8::1 2001:db8::2 51000 443\r\n", "address"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", "address"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n", "address"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 051 443\r\n", "address"),
            (SIGNATURE + b"\x31\x11\0\x0c" + bytes(12), "version"),
            (SIGNATURE + b"\x22\x11\0\x0c" + bytes(12), "version"),
            (SIGNATURE + b"\x21\x11\xff\xff", "too_long"),
            (SIGNATURE + b"\x21\x21\0\x0c" + bytes(12), "too_short"),
        ):
            for pieces in ([octets], [octets[at : at + 1] for at in range(len(octets))]):
                with self.assertRaises(BadProxyHeader) as raised:
                    read(pieces)
                self.assertEqual(raised.exception.why, why, octets)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_anything(self, octets: bytes) -> None:
        """Whatever comes is a header, is not, or is not complete."""
        header = ProxyHeader()
        try:
            taken = header.feed(octets)
        except BadProxyHeader:
            return
        self.assertLessEqual(taken, len(octets))
        self.assertTrue(header.result is not None or taken == len(octets))


class WriteTests(SynchronousTestCase):
    """Writing."""

    def test_text(self) -> None:
        """Version 1 is the line that the specification shows."""
        self.assertEqual(proxy_header(1, *V4), b"PROXY TCP4 192.0.2.1 192.0.2.2 51000 443\r\n")

    def test_mixed_families(self) -> None:
        """Ends of two families cannot be said; the header names nobody then."""
        self.assertEqual(read([proxy_header(2, V4[0], V6[1])])[0], Proxied())
