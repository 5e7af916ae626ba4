"""Frames that tell where an address lives."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.announce import REPEATS_S, announcement

MAC = bytes.fromhex("020000000a01")


class AnnouncementTests(SynchronousTestCase):
    """Gratuitous ARP and unsolicited neighbour advertisements."""

    def test_arp(self) -> None:
        """A broadcast whose sender and target are the address itself (RFC 5227 §3)."""
        vip = IPv4Address("192.0.2.100")
        frame = announcement(vip, MAC)
        self.assertEqual(frame[:14], b"\xff" * 6 + MAC + b"\x08\x06")
        self.assertEqual(frame[14:42], bytes.fromhex("0001080006040001") + MAC + vip.packed + b"\0" * 6 + vip.packed)
        self.assertEqual(len(frame), 60)

    def test_neighbour_advertisement(self) -> None:
        """To all nodes, hop limit 255, override set (RFC 4861 §7.2.6)."""
        vip = IPv6Address("2001:db8::100")
        frame = announcement(vip, MAC)
        self.assertEqual(frame[:14], bytes.fromhex("333300000001") + MAC + b"\x86\xdd")
        self.assertEqual(frame[21], 255)
        self.assertEqual(frame[54], 136)
        self.assertEqual(frame[58] & 0x20, 0x20)
        self.assertTrue(frame.endswith(vip.packed + b"\x02\x01" + MAC))

    def test_repeated(self) -> None:
        """A lost announcement is not the last one."""
        self.assertEqual(REPEATS_S[0], 0.0)
        self.assertGreater(len(REPEATS_S), 2)
