"""Packets that wake us, and those that do not: the filter of answers, run by the kernel."""

from __future__ import annotations

import os
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.kernel.rawsocket import answer_socket, packet_socket
from lbarray.values import Address

OWN, OWN6 = IPv4Address("127.93.0.2"), IPv6Address("fd93::2")
FIRST = 61000


def packet(to: Address, port: int, *, protocol: int = 6, fragment: int = 0, options: int = 0) -> bytes:
    """An IP packet of TCP to a port, from the other side."""
    segment = struct.pack("!HHIIBBHHH", 80, port, 1, 2, 0x50, 0x12, 0, 0, 0)
    if to.version == 6:
        return struct.pack("!IHBB", 0x60000000, 20, protocol, 64) + ip_address("fd93::1").packed + to.packed + segment
    length = 20 + 4 * options
    head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + 20, 0, fragment, 64, protocol, 0)
    return head + IPv4Address("127.93.0.1").packed + to.packed + b"\1" * (4 * options) + segment


class AnswerSocketTests(SynchronousTestCase):
    """On loopback: what is sent there comes in."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("not root")

    def heard(self, own: Address, packets: list[bytes]) -> list[bytes]:
        """Which of these packets the socket lets in."""
        kind = b"\x86\xdd" if own.version == 6 else b"\x08\x00"
        found = []
        with answer_socket("lo", own, FIRST) as answers, packet_socket("lo") as out:
            for each in packets:
                out.send(bytes(12) + kind + each)
            answers.settimeout(0.05)
            try:
                while True:
                    found.append(answers.recv(256))
            except (TimeoutError, BlockingIOError):
                pass
        return found

    def test_ipv4(self) -> None:
        """TCP to our address and ports, with IP options too; no fragments, nothing else."""
        good = [packet(OWN, 61000), packet(OWN, 65535), packet(OWN, 61001, options=3)]
        bad = [
            packet(OWN, 60999),
            packet(IPv4Address("127.93.0.3"), 61000),
            packet(OWN, 61000, protocol=17),
            packet(OWN, 61000, fragment=7),
        ]
        self.assertEqual(self.heard(OWN, [*bad, *good]), good)

    def test_ipv6(self) -> None:
        """The same over IPv6."""
        good = [packet(OWN6, 61000), packet(OWN6, 65535)]
        bad = [packet(OWN6, 60999), packet(IPv6Address("fd93::3"), 61000), packet(OWN6, 61000, protocol=17)]
        self.assertEqual(self.heard(OWN6, [*bad, *good]), good)
