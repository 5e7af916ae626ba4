"""A sample of packets as a file."""

from __future__ import annotations

import os
import socket
import struct
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.kernel.capture import Bounds, capture_packets, concerns, pcap_header, pcap_record
from tests.bpf.frames import VIP, VIP6, ethernet, ipv4, ipv6, tcp, web, web6


class FormatTests(SynchronousTestCase):
    """The file, and which packets are in it."""

    def test_concerns(self) -> None:
        """Frames to and from the addresses, tagged or not; no others."""
        for frame in (
            web(),
            web6(),
            ethernet(ipv4(tcp(), source=str(VIP), to=IPv4Address("198.51.100.7"))),
            ethernet(ipv6(tcp(), source=str(VIP6), to=IPv6Address("2001:db8:1::7"))),
            ethernet(ipv4(tcp()), tags=(7,)),
        ):
            self.assertTrue(concerns(frame, {VIP, VIP6}))
            self.assertFalse(concerns(frame, {IPv4Address("192.0.2.222")}))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=80))
    def test_noise(self, frame: bytes) -> None:
        """Whatever else is on the wire."""
        concerns(frame, {VIP})

    def test_file(self) -> None:
        """The header says microseconds and Ethernet; a record says how long the packet really was."""
        self.assertEqual(struct.unpack("=IHHiIII", pcap_header(128)), (0xA1B2C3D4, 2, 4, 0, 0, 128, 1))
        self.assertEqual(struct.unpack("=IIII", pcap_record(b"x" * 128, 1514, 5.25)[:16]), (5, 250000, 128, 1514))


class CaptureTests(SynchronousTestCase):
    """On loopback, for real."""

    def setUp(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("not root")

    def capture(self, bounds: Bounds, sent: int) -> bytes:
        path = Path(self.mktemp())
        address = IPv4Address("127.93.0.1")
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        done = threading.Event()

        def send() -> None:
            while not done.wait(0.05):
                for _ in range(sent):
                    sender.sendto(b"y" * 300, (str(address), 9))

        thread = threading.Thread(target=send)
        thread.start()
        try:
            self.written, _ = capture_packets("lo", {address}, path, bounds)
        finally:
            done.set()
            thread.join()
            sender.close()
        return path.read_bytes()

    def test_bounded(self) -> None:
        """It ends at the number of packets, keeps so many octets of each, and says their real length."""
        data = self.capture(Bounds(packets=3, seconds=10.0, octets=64), sent=2)
        self.assertEqual((self.written, len(data)), (3, 24 + 3 * (16 + 64)))
        self.assertEqual(struct.unpack_from("=II", data, 24 + 8), (64, 14 + 28 + 300))

    def test_sampled(self) -> None:
        """Of many, the kernel chooses few."""
        self.capture(Bounds(packets=10_000, seconds=0.5, sample=1000), sent=50)
        self.assertLess(self.written, 100)
