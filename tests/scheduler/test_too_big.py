"""What a client is told whose packet does not fit."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from lbarray.scheduler.too_big import RateLimit, too_big_answer
from tests.bpf.frames import CLIENT, ROUTER, VIP, ethernet, ipv4, ipv6, tcp, with_checksum

MAC = b"\2\0\0\0\0\7"


def summed(octets: bytes) -> int:
    """Sixteen bits of one's complement sum; all ones where a checksum in it is right (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class AnswerTests(SynchronousTestCase):
    """The ICMP messages."""

    def test_fragmentation_needed(self) -> None:
        """From the VIP to the client, by the way the packet came, with what fits and the beginning of the packet."""
        frame = ethernet(ipv4(tcp(payload=bytes(1400))))
        answer = too_big_answer(frame, 1364, MAC)
        self.assertEqual(answer[:14], ROUTER + MAC + b"\x08\0")
        self.assertEqual(with_checksum(answer[14:]), answer[14:])
        self.assertEqual(answer[26:34], VIP.packed + bytes(map(int, CLIENT.split("."))))
        self.assertEqual(int.from_bytes(answer[16:18], "big"), len(answer) - 14)
        self.assertEqual(struct.unpack("!BBxxHH", answer[34:42]), (3, 4, 0, 1364))
        self.assertEqual(summed(answer[34:]), 0xFFFF)
        self.assertTrue(frame[14:].startswith(answer[42:]))
        self.assertLessEqual(len(answer) - 14, 576)  # RFC 1812 section 4.3.2.3

    def test_packet_too_big(self) -> None:
        """The same over IPv6, with a checksum over the pseudo-header (RFC 4443 section 2.3)."""
        frame = ethernet(ipv6(tcp(payload=bytes(1400))))
        answer = too_big_answer(frame, 1400, MAC)
        self.assertEqual(answer[22:38] + answer[38:54], frame[38:54] + frame[22:38])
        self.assertEqual(struct.unpack("!BBxxI", answer[54:62]), (2, 0, 1400))
        pseudo = answer[22:54] + struct.pack("!II", len(answer) - 54, 58)
        self.assertEqual(summed(pseudo + answer[54:]), 0xFFFF)

    def test_of_no_use(self) -> None:
        """Nobody is told less than what every network carries (RFC 8201 section 4: it would be ignored)."""
        self.assertEqual(too_big_answer(ethernet(ipv6(tcp(payload=bytes(1400)))), 1279, MAC), b"")
        self.assertEqual(too_big_answer(ethernet(ipv4(tcp(payload=bytes(1400)))), 67, MAC), b"")
        self.assertEqual(too_big_answer(b"", 1400, MAC), b"")


class RateLimitTests(SynchronousTestCase):
    """Few answers."""

    def test_bucket(self) -> None:
        """A burst, then what the rate gives."""
        limit = RateLimit(rate=10, burst=3)
        self.assertEqual([limit.take(100.0) for _ in range(5)], [True, True, True, False, False])
        self.assertEqual([limit.take(100.2) for _ in range(3)], [True, True, False])
        self.assertEqual(sum(limit.take(1000.0) for _ in range(9)), 3)
