"""What a back end is told of the client, and what of it is believed."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields
from lbarray.http.forwarding import Forwarding

HOPS = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


class ForwardingTests(SynchronousTestCase):
    """Lines for back ends."""

    def test_styles(self) -> None:
        """The fields of old, the field of RFC 7239, or both."""
        for style, wanted in (
            (
                "x-forwarded",
                b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: a.example\r\n",
            ),
            ("forwarded", b"Forwarded: for=192.0.2.1;proto=https;host=a.example\r\n"),
        ):
            lines = Forwarding(style=style).lines("192.0.2.1", b"a.example", tls=True)
            self.assertEqual(lines, wanted + b"Via: 1.1 lbarray\r\n")
        both = Forwarding(style="both").lines("192.0.2.1", b"a.example", tls=True)
        self.assertEqual((both.count(b"X-Forwarded-For:"), both.count(b"\r\nForwarded:")), (1, 1))

    def test_quoted(self) -> None:
        """An IPv6 address and a port need quotes in Forwarded (RFC 7239 §6)."""
        lines = Forwarding(style="forwarded").lines("2001:db8::1", b"a.example:8080", tls=False)
        self.assertTrue(lines.startswith(b'Forwarded: for="[2001:db8::1]";proto=http;host="a.example:8080"\r\n'))

    def test_client_behind_hops(self) -> None:
        """The last address that is no trusted hop, whatever stands before it; hops stay in the list."""
        forwarding = Forwarding(trusted=HOPS)
        for said, client in (
            ([(b"X-Forwarded-For", b"6.6.6.6, 192.0.2.7, 10.1.1.1")], "192.0.2.7"),
            ([(b"X-Forwarded-For", b"192.0.2.7"), (b"X-Forwarded-For", b"10.1.1.1")], "192.0.2.7"),
            ([(b"X-Forwarded-For", b"10.1.1.1")], "10.1.1.1"),
            ([(b"X-Forwarded-For", b"unknown, 10.1.1.1")], "10.1.1.1"),
            ([(b"X-Forwarded-For", b"[2001:db9::1]:443")], "2001:db9::1"),
            ([(b"Forwarded", b'for="[2001:db9::1]:80";proto=http, for=10.0.0.9')], "2001:db9::1"),
            ([], "10.0.0.5"),
        ):
            found, lines = forwarding.of_trusted("10.0.0.5", said, b"a", tls=False)
            self.assertEqual((said, found), (said, client))
            self.assertIn(b"10.0.0.5\r\n", lines)

    def test_kept(self) -> None:
        """What a trusted hop says of scheme and host is passed on."""
        said = [(b"X-Forwarded-Proto", b"https"), (b"X-Forwarded-Host", b"shop.example")]
        _, lines = Forwarding(trusted=HOPS).of_trusted("10.0.0.5", said, b"inner", tls=False)
        self.assertIn(b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n", lines)

    def test_trusts(self) -> None:
        """Addresses within the networks, and nothing else."""
        forwarding = Forwarding(trusted=HOPS)
        for host, wanted in (("10.9.9.9", True), ("192.0.2.1", False), ("2001:db8::7", True), ("?", False)):
            self.assertEqual(forwarding.trusts(host), wanted)
        self.assertFalse(Forwarding().trusts("10.9.9.9"))

    @settings(deadline=None, max_examples=80)
    @given(st.lists(st.tuples(st.sampled_from([b"X-Forwarded-For", b"Forwarded"]), st.binary(max_size=40)), max_size=4))
    def test_any_list(self, said: Fields) -> None:
        """Whatever stands in the list, there is a client and one set of lines."""
        said = [(name, value.translate(None, b"\r\n\0")) for name, value in said]
        client, lines = Forwarding(style="both", trusted=HOPS).of_trusted("10.0.0.5", said, b"a", tls=False)
        self.assertTrue(client)
        self.assertEqual(lines.count(b"\r\n"), 5)
