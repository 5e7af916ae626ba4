"""Frames that tell where an address lives, and that ask whether somebody has it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.announce import REPEATS_S, Claim, announcements, claim_in, multicast_mac, probe
from lbarray.failover.packet import checksum

MAC = bytes.fromhex("020000000a01")
VIP4, VIP6 = IPv4Address("192.0.2.100"), IPv6Address("2001:db8::100")


class AnnouncementTests(SynchronousTestCase):
    """Gratuitous ARP and unsolicited neighbour advertisements."""

    def test_arp(self) -> None:
        """A broadcast request, and a reply, whose sender and target are the address itself (RFC 5227 §3)."""
        request, reply = announcements(VIP4, MAC)
        for frame, operation, target in ((request, 1, b"\0" * 6), (reply, 2, MAC)):
            self.assertEqual(frame[:14], b"\xff" * 6 + MAC + b"\x08\x06")
            head = bytes.fromhex("000108000604") + operation.to_bytes(2, "big")
            self.assertEqual(frame[14:42], head + MAC + VIP4.packed + target + VIP4.packed)
            self.assertEqual(len(frame), 60)

    def test_neighbour_advertisement(self) -> None:
        """To all nodes, hop limit 255, router and override set (RFC 9568 §6.4.2), with a right checksum."""
        [frame] = announcements(VIP6, MAC)
        self.assertEqual(frame[:14], bytes.fromhex("333300000001") + MAC + b"\x86\xdd")
        self.assertEqual((frame[21], frame[54], frame[58]), (255, 136, 0xA0))
        self.assertTrue(frame.endswith(VIP6.packed + b"\x02\x01" + MAC))
        pseudo = frame[22:54] + (len(frame) - 54).to_bytes(4, "big") + b"\0\0\0\x3a"
        self.assertEqual(checksum(pseudo + frame[54:]), 0)

    def test_repeated(self) -> None:
        """A lost announcement is not the last one."""
        self.assertEqual(REPEATS_S[0], 0.0)
        self.assertGreater(len(REPEATS_S), 2)

    def test_group_addresses(self) -> None:
        """Multicast groups have their own Ethernet addresses (RFC 1112 §6.4, RFC 2464 §7)."""
        self.assertEqual(multicast_mac(IPv4Address("224.0.0.18")).hex(":"), "01:00:5e:00:00:12")
        self.assertEqual(multicast_mac(IPv6Address("ff02::12")).hex(":"), "33:33:00:00:00:12")


class ProbeTests(SynchronousTestCase):
    """Asking without changing anybody's cache."""

    def test_arp(self) -> None:
        """A request without a sender address (RFC 5227 §2.1.1)."""
        frame = probe(VIP4, MAC)
        self.assertEqual(frame[14:42], bytes.fromhex("0001080006040001") + MAC + b"\0" * 10 + VIP4.packed)

    def test_neighbour_solicitation(self) -> None:
        """From no address to the solicited node's group, without a source option (RFC 4862 §5.4.2)."""
        frame = probe(VIP6, MAC)
        self.assertEqual(frame[:6].hex(":"), "33:33:ff:00:01:00")
        self.assertEqual(IPv6Address(frame[22:38]), IPv6Address("::"))
        self.assertEqual(IPv6Address(frame[38:54]), IPv6Address("ff02::1:ff00:100"))
        self.assertEqual((frame[54], frame[62:]), (135, VIP6.packed))


class ClaimTests(SynchronousTestCase):
    """What frames claim."""

    def test_announcements_claim(self) -> None:
        """Every form of announcement claims its address."""
        for vip in (VIP4, VIP6):
            for frame in announcements(vip, MAC):
                self.assertEqual(claim_in(frame), Claim(vip, MAC))

    def test_probes_do_not(self) -> None:
        """Asking is no claim."""
        self.assertEqual([claim_in(probe(vip, MAC)) for vip in (VIP4, VIP6)], [None, None])

    def test_advertisement_without_its_option(self) -> None:
        """Without a link-layer option it is the frame's sender that has the address."""
        [frame] = announcements(VIP6, MAC)
        self.assertEqual(claim_in(frame[:78]), Claim(VIP6, MAC))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=100), st.sampled_from([b"", b"\x08\x06", b"\x86\xdd"]))
    def test_noise(self, octets: bytes, kind: bytes) -> None:
        """Whatever comes claims something or nothing, and raises nothing."""
        claim_in(octets)
        claim_in(octets[:12].ljust(12, b"\0") + kind + octets)
        for frame in announcements(VIP4, MAC) + announcements(VIP6, MAC):
            for length in range(len(frame)):
                claim_in(frame[:length])
