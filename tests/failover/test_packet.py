"""VRRPv3 advertisements as octets."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.packet import (
    Advertisement,
    BadAdvertisement,
    checksum,
    decode,
    encode,
    from_ipv4_datagram,
    ip_datagram,
)

SOURCE, GROUP = IPv4Address("192.0.2.1"), IPv4Address("224.0.0.18")
SAID = Advertisement(51, 150, 100, (IPv4Address("192.0.2.100"),))

advertisements = st.builds(
    Advertisement,
    router_id=st.integers(1, 255),
    priority=st.integers(0, 255),
    interval_cs=st.integers(1, 4095),
    addresses=st.lists(st.ip_addresses(v=4), min_size=1, max_size=8).map(tuple),
)


def datagram(message: bytes, ttl: int = 255) -> bytes:
    """The message as a raw socket delivers it."""
    head = bytes([0x45, 0xC0, 0, 20 + len(message), 0, 0, 0, 0, ttl, 112, 0, 0])
    return head + SOURCE.packed + GROUP.packed + message


class CodecTests(SynchronousTestCase):
    """Encoding and decoding (RFC 9568 §5.2)."""

    def test_layout(self) -> None:
        """Version and type, router, priority, count, interval: each where the RFC has it."""
        octets = encode(SAID, SOURCE, GROUP)
        self.assertEqual(octets[:6], bytes([0x31, 51, 150, 1, 0, 100]))
        self.assertEqual(octets[8:], SAID.addresses[0].packed)

    @settings(deadline=None, max_examples=50)
    @given(advertisements)
    def test_round_trip(self, said: Advertisement) -> None:
        """What is encoded is decoded, whatever it says."""
        self.assertEqual(decode(encode(said, SOURCE, GROUP), SOURCE, GROUP), said)

    def test_ipv6(self) -> None:
        """IPv6 addresses and pseudo-header have their own lengths."""
        said = Advertisement(7, 100, 10, (IPv6Address("fe80::1"), IPv6Address("2001:db8::1")))
        source, group = IPv6Address("fe80::2"), IPv6Address("ff02::12")
        self.assertEqual(decode(encode(said, source, group), source, group), said)

    def test_trailing_octets(self) -> None:
        """Link layer padding behind the message does not count."""
        self.assertEqual(decode(encode(SAID, SOURCE, GROUP) + b"\0" * 9, SOURCE, GROUP), SAID)

    def test_checksum_without_pseudo_header(self) -> None:
        """Implementations that leave the pseudo-header out are understood."""
        octets = bytearray(encode(SAID, SOURCE, GROUP))
        octets[6:8] = b"\0\0"
        octets[6:8] = checksum(bytes(octets)).to_bytes(2, "big")
        self.assertEqual(decode(bytes(octets), SOURCE, GROUP), SAID)

    def refused(self, octets: bytes) -> str:
        error: BadAdvertisement = self.assertRaises(BadAdvertisement, decode, octets, SOURCE, GROUP)
        return error.why

    def test_wrong_checksum(self) -> None:
        """One flipped bit is noticed."""
        octets = bytearray(encode(SAID, SOURCE, GROUP))
        octets[2] ^= 1
        self.assertEqual(self.refused(bytes(octets)), "checksum")

    def test_version_2(self) -> None:
        """The older protocol is refused as what it is."""
        self.assertEqual(self.refused(b"\x21" + encode(SAID, SOURCE, GROUP)[1:]), "version")

    def test_unknown_type(self) -> None:
        """There is one type."""
        self.assertEqual(self.refused(b"\x32" + encode(SAID, SOURCE, GROUP)[1:]), "type")

    def test_truncated(self) -> None:
        """Every message that is cut short is refused."""
        whole = encode(SAID, SOURCE, GROUP)
        for length in range(len(whole)):
            self.assertIn(self.refused(whole[:length]), ("truncated", "checksum"))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=60))
    def test_noise(self, octets: bytes) -> None:
        """Any octets are an advertisement or refused; nothing else happens."""
        try:
            message, source, group = from_ipv4_datagram(octets)
            decode(message, source, group)
        except BadAdvertisement as error:
            self.assertTrue(error.why)


class DatagramTests(SynchronousTestCase):
    """What comes from a raw IPv4 socket."""

    def test_sender(self) -> None:
        """The sender is the IP header's."""
        message = encode(SAID, SOURCE, GROUP)
        self.assertEqual(from_ipv4_datagram(datagram(message)), (message, SOURCE, GROUP))

    def test_header(self) -> None:
        """The header that we make is as the RFC wants it, and its checksum right."""
        octets = ip_datagram(encode(SAID, SOURCE, GROUP), SOURCE, GROUP)
        self.assertEqual((octets[1], octets[8], octets[9], checksum(octets[:20])), (0xC0, 255, 112, 0))
        message, source, group = from_ipv4_datagram(octets)
        self.assertEqual(decode(message, source, group), SAID)
        six = ip_datagram(b"x" * 8, IPv6Address("fe80::1"), IPv6Address("ff02::12"))
        self.assertEqual((six[:8].hex(), len(six)), ("6c000000000870ff", 48))

    def test_routed(self) -> None:
        """A TTL below 255 means that somebody beyond a router sent it (RFC 9568 §5.1.1.3)."""
        octets = datagram(encode(SAID, SOURCE, GROUP), ttl=254)
        error: BadAdvertisement = self.assertRaises(BadAdvertisement, from_ipv4_datagram, octets)
        self.assertEqual(error.why, "ttl")
        self.assertEqual(from_ipv4_datagram(octets, 254)[1], SOURCE)
