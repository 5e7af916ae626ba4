"""Coalesced packets and checksums that are to come."""

from __future__ import annotations

import struct

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.frames import tagged
from lbarray.scheduler.offload import is_coalesced, segments, shifted, without_tags
from tests.bpf.frames import ACK, FIN, ethernet, ipv4, ipv6, tcp, with_checksum

HEADER = struct.Struct("=BBHHHH")
PUSH = 8


class SegmentTests(SynchronousTestCase):
    """One frame as several."""

    def cut(self, version: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """A payload, and the segments of a frame with it."""
        payload = bytes(range(250)) * 10
        segment = tcp(flags=ACK | FIN | PUSH, payload=payload)
        packet = ipv4(segment) if version == 4 else ipv6(segment)
        begin = 34 if version == 4 else 54
        return payload, segments(
            HEADER.pack(1, 1 if version == 4 else 4, begin + 20, 1000, begin, 16), ethernet(packet)
        )

    def test_whole(self) -> None:
        """Together they are what the frame was; each is told where its checksum goes."""
        for version, begin in ((4, 34), (6, 54)):
            payload, found = self.cut(version)
            self.assertEqual(b"".join(frame[begin + 20 :] for _, frame in found), payload)
            self.assertEqual([len(frame) - begin - 20 for _, frame in found], [1000, 1000, 500])
            sequence = [int.from_bytes(frame[begin + 4 : begin + 8], "big") for _, frame in found]
            self.assertEqual(sequence, [1, 1001, 2001])
            self.assertEqual([frame[begin + 13] for _, frame in found], [ACK, ACK, ACK | FIN | PUSH])
            self.assertEqual({header for header, _ in found}, {HEADER.pack(1, 0, begin + 20, 0, begin, 16)})

    def test_headers(self) -> None:
        """IPv4 headers have their length, number and checksum; IPv6 ones their length."""
        _, found = self.cut(4)
        for number, (_, frame) in enumerate(found):
            self.assertEqual(with_checksum(frame[14:]), frame[14:])
            self.assertEqual(struct.unpack("!HH", frame[16:20]), (len(frame) - 14, 7 + number))
        for _, frame in self.cut(6)[1]:
            self.assertEqual(int.from_bytes(frame[18:20], "big"), len(frame) - 54)

    def test_pseudo_header(self) -> None:
        """The kernel finishes a checksum that begins with the pseudo-header's sum (RFC 9293 section 3.1)."""
        for _, frame in self.cut(4)[1]:
            words = struct.unpack("!4H", frame[26:34])
            total = sum(words) + 6 + len(frame) - 34
            self.assertEqual(int.from_bytes(frame[50:52], "big"), (total & 0xFFFF) + (total >> 16))

    def test_nonsense(self) -> None:
        """A frame that is not what its header says is left as it is."""
        header = HEADER.pack(1, 1, 54, 1000, 34, 16)
        self.assertEqual(segments(header, bytes(20)), [(header, bytes(20))])


class HeaderTests(SynchronousTestCase):
    """What is told of a frame."""

    def test_shifted(self) -> None:
        """Where the checksum goes moves with the octets before it; nothing is told of a plain frame."""
        self.assertEqual(shifted(HEADER.pack(1, 0, 54, 0, 34, 16), 36), HEADER.pack(1, 0, 90, 0, 70, 16))
        self.assertEqual(shifted(bytes(10), 36), bytes(10))

    def test_coalesced(self) -> None:
        """TCP segments of either version of IP, with congestion marks or not; nothing else is taken apart."""
        for kind in (1, 4, 0x81, 0x84):
            self.assertTrue(is_coalesced(HEADER.pack(1, kind, 54, 1448, 34, 16)))
        for kind in (0, 5):
            self.assertFalse(is_coalesced(HEADER.pack(1, kind, 54, 1448, 34, 16)))

    def test_tags(self) -> None:
        """A tag that the kernel took out is put back, and what goes to the local stack has none."""
        header, frame = HEADER.pack(1, 0, 54, 0, 34, 16), ethernet(ipv4(tcp()))
        wire = tagged(header + frame, 5, 0x8100)
        self.assertEqual(wire[10:], ethernet(ipv4(tcp()), tags=(5,)))
        self.assertEqual(wire[:10], HEADER.pack(1, 0, 58, 0, 38, 16))
        self.assertEqual(without_tags(wire[:10], wire[10:]), (header, frame))
