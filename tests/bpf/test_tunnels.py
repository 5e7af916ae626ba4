"""Workers beyond a router: the program and its model put packets into tunnels, and take them out, alike."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from lbarray.kernel.links import link
from lbarray.scheduler.abi import MARK_ONCE, MARK_TWICE, Verdict
from lbarray.scheduler.bpf_plane import BpfPlane
from lbarray.scheduler.decision import PacketDecision
from lbarray.scheduler.headers import Packet
from lbarray.scheduler.offload import HEADER
from lbarray.scheduler.packet_plane import PacketPlane
from lbarray.scheduler.table import RowTable
from lbarray.scheduler.tunnel import encapsulate, outer_length
from lbarray.values import Address, WorkerTarget
from tests.bpf.bench import INDEX, PEER_C, SECRET, TABLE_SIZE, ProgramTestCase, own_network
from tests.bpf.frames import ROUTER, SYN, ethernet, ipv4, ipv6, random_frame, tcp, web, web6, with_checksum


class TunnelTestCase(ProgramTestCase):
    """b, c and d are reached by a router."""

    tunnel = "gue"
    own: Address = IPv4Address("192.0.2.1")
    far: tuple[Address, ...] = tuple(IPv4Address(f"203.0.113.{number}") for number in (2, 3, 4))

    def setUp(self) -> None:
        own_network(self)
        self.plane = self.make(self.own)
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        place = link("lo")
        self.model = PacketDecision(
            mac=place.mac, secret=SECRET, table_size=TABLE_SIZE, self_index=0, address=self.own, mtu=place.mtu
        )
        self.prepare()
        self.workers = [
            WorkerTarget(0, "a", self.own, b"\2\0\0\0\0\1", local=True),
            *(
                WorkerTarget(place, "bcd"[place - 1], far, ROUTER, tunnel=self.tunnel)
                for place, far in enumerate(self.far, 1)
            ),
        ]
        self.set(workers=self.workers)

    def narrow(self, mtu: int) -> None:
        """From now on a packet may have so many octets on its way."""
        self.plane.mtu = self.model.mtu = mtu
        self.set(workers=self.workers)


class GueTests(TunnelTestCase):
    """GUE between IPv4 addresses, as a tc classifier."""

    mode = "tc"

    def tunnelled(self, packet: bytes, passes: int = 0, by: Address | None = None) -> bytes:
        """A frame as another node sends it to this one."""
        inner = ethernet(packet)
        target = attrs.evolve(self.workers[1], address=self.own, mac=link("lo").mac)
        sender = by or self.far[0]
        octets = sender.packed if sender.version == 6 else b"\0" * 10 + b"\xff\xff" + sender.packed
        read = Packet(14, 0x86DD if packet[:1] >= b"\x60" else 0x0800, 0, source=bytes(16), source_port=bytes(2))
        return encapsulate(inner, read, target, octets, ROUTER, passes)

    def is_for_kernel(self, frame: bytes) -> bool:
        found = self.model.find_tunnel(frame)
        return found is None and self.own.packed in (frame[30:34], frame[38:54])

    def test_put_in(self) -> None:
        """A packet for a far worker goes to the router, addressed to the worker, whole inside."""
        for make in (web, web6):
            for port in range(2000, 2100):
                frame = make(sport=port, flags=SYN)
                decision = self.run_both(frame)
                if decision.verdict is Verdict.FORWARDED:
                    assert decision.worker is not None
                    self.assertEqual(decision.frame[:6], ROUTER)
                    self.assertTrue(decision.frame.endswith(frame[14:]))
                    self.assertEqual(len(decision.frame) - len(frame), outer_length(self.workers[decision.worker]))
                    if self.own.version == 4:
                        self.assertEqual(with_checksum(decision.frame[14:]), decision.frame[14:])
                        self.assertEqual(decision.frame[30:34], self.far[decision.worker - 1].packed)

    def test_taken_out(self) -> None:
        """What another node has put in comes out as it was, and is not scheduled again."""
        self.table = RowTable(INDEX, TABLE_SIZE)  # without a history
        self.members("a")
        for packet in (ipv4(tcp(2001)), ipv6(tcp(2001)), ipv4(tcp(2001, flags=SYN))):
            decision = self.run_both(self.tunnelled(packet))
            self.assertEqual(decision.verdict, Verdict.PASSED_DELIVERED)
            self.assertEqual(decision.frame[14:], packet)

    def test_passed_on(self) -> None:
        """A second chance beyond the router: the tunnel tells how often a packet was passed on, three times at most."""
        for name in ("d", "c", "b", "a"):
            self.members(name)
        frame = self.tunnelled(ipv4(tcp(2001)))
        once = self.run_both(frame)
        self.assertEqual((once.verdict, once.worker), (Verdict.PASSED_ON, 1))
        for passes in (1, 2):
            self.assertEqual(self.run_both(self.tunnelled(ipv4(tcp(2001)), passes)).verdict, Verdict.PASSED_ON)
        last = self.run_both(self.tunnelled(ipv4(tcp(2001)), 3))
        self.assertEqual(last.verdict, Verdict.PASSED_DELIVERED)

    def test_strangers(self) -> None:
        """Only nodes of the array may send tunnels; others' are left to the kernel, whole."""
        stranger: Address = ip_address("203.0.113.99" if self.own.version == 4 else "2001:db8:9::99")
        decision = self.run_both(self.tunnelled(ipv4(tcp(2001)), by=stranger))
        self.assertEqual(decision.frame, b"")
        self.assertIn(decision.verdict, (Verdict.PASSED_NO_SERVICE, Verdict.PASSED_OTHER_PROTOCOL))

    def test_too_big(self) -> None:
        """What does not fit with its outer headers is dropped and counted: the kernel would only do it later."""
        self.members("b")
        self.narrow(1400)
        payload = 1400 - outer_length(self.workers[1]) - 40
        self.assertEqual(self.verdict(ethernet(ipv4(tcp(payload=bytes(payload))))), "FORWARDED")
        self.assertEqual(self.verdict(ethernet(ipv4(tcp(payload=bytes(payload + 1))))), "DROPPED_TOO_BIG")

    def test_random(self) -> None:
        """Random packets, in tunnels or not, cut and changed."""
        chance = random.Random(5)
        seen = set()
        for number in range(10_000):
            if number % 1000 == 0:
                self.members(*(("a", "b"), ("b", "c"), ("a", "c"))[number // 1000 % 3])
            frame = random_frame(chance, [])
            if chance.random() < 0.5:
                frame = self.tunnelled(frame[14:] if frame[14:15] else ipv4(tcp()), chance.randrange(8))
                if chance.random() < 0.3:
                    at = chance.randrange(12, min(60, len(frame)))
                    frame = frame[:at] + chance.randbytes(1) + frame[at + 1 :]
            if self.can_run(frame):
                seen.add(self.run_both(frame).verdict)
        self.assertTrue({Verdict.FORWARDED, Verdict.PASSED_ON, Verdict.PASSED_DELIVERED} <= seen)


class IpipTests(GueTests):
    """IPIP between IPv4 addresses."""

    tunnel = "ipip"


class Gue6Tests(GueTests):
    """GUE between IPv6 addresses."""

    own = IPv6Address("2001:db8:9::1")
    far = tuple(IPv6Address(f"2001:db8:9::{number}") for number in (2, 3, 4))


class Ipip6XdpTests(Gue6Tests):
    """IPIP between IPv6 addresses, as XDP."""

    mode = "xdp-generic"
    tunnel = "ipip"


class GueXdpTests(GueTests):
    """GUE between IPv4 addresses, as XDP."""

    mode = "xdp-generic"


class GuePacketTests(GueTests):
    """GUE between IPv4 addresses, by the plane in Python."""

    mode = "packet"


class Ipip6PacketTests(Gue6Tests):
    """IPIP between IPv6 addresses, by the plane in Python."""

    mode = "packet"
    tunnel = "ipip"


class MixedTests(TunnelTestCase):
    """c is in this segment, the others are beyond a router; as a tc classifier."""

    def setUp(self) -> None:
        super().setUp()
        self.workers[2] = WorkerTarget(2, "c", IPv4Address("192.0.2.3"), PEER_C)
        self.set(workers=self.workers)

    def test_passed_on(self) -> None:
        """What a node of this segment has passed on gets into a tunnel, whatever EtherType it came with."""
        for name in ("b", "a"):
            self.members(name)
        for mark, packet in ((MARK_ONCE, ipv4(tcp(2001))), (MARK_TWICE, ipv6(tcp(2001)))):
            decision = self.run_both(ethernet(packet, source=PEER_C, ethertype=mark))
            self.assertEqual((decision.verdict, decision.worker), (Verdict.PASSED_ON, 1))
            self.assertTrue(decision.frame.endswith(packet))
        self.assertEqual(self.plane.counters().packets["dropped_no_room"], 0)


class MixedXdpTests(MixedTests):
    """The same as XDP."""

    mode = "xdp-generic"


class CoalescedTests(TunnelTestCase):
    """Several segments that the kernel has made one: what counts is how large each was, and will be again."""

    def fits(self, packet: bytes, size: int) -> bool:
        """Is a packet with segments of ``size`` octets of payload let into a tunnel? By its verdict: no test run says
        for the kernel whose segments they are, without which it makes no room for other headers."""
        assert isinstance(self.plane, BpfPlane)
        before = self.plane.counters().packets["forwarded"]
        self.plane.program.test_run(ethernet(packet), segment=size)
        return self.plane.counters().packets["forwarded"] > before

    def test_size(self) -> None:
        """By either version of IP, with and without options."""
        self.members("b")
        self.narrow(1400)
        most = 1400 - outer_length(self.workers[1])
        for make, head in ((ipv4, 20), (ipv6, 40)):
            for options in (0, 3, 10):
                for surplus in (0, 1):
                    size = most - head - 20 - 4 * options + surplus
                    packet = make(tcp(options=options, payload=bytes(2 * size)))
                    self.assertEqual(self.fits(packet, size), not surplus, f"{make}, {options} words, {size} octets")


class CoalescedPacketTests(CoalescedTests):
    """The same by the plane in Python, which makes several of one."""

    mode = "packet"

    def fits(self, packet: bytes, size: int) -> bool:
        assert isinstance(self.plane, PacketPlane)
        transport = 14 + (20 if packet[0] >> 4 == 4 else 40)
        kind = 1 if packet[0] >> 4 == 4 else 4
        out: list[bytes] = []
        self.plane.handle(HEADER.pack(1, kind, transport + 20, size, transport, 16) + ethernet(packet), out, [])
        return len(out) == 2 and all(len(frame) > size for frame in out)


class NoRoomTests(TunnelTestCase):
    """A packet whose headers the kernel does not change."""

    def test_no_room(self) -> None:
        """What the kernel makes no room for is counted, besides where it should have gone."""
        self.members("b")
        assert isinstance(self.plane, BpfPlane)
        self.plane.program.test_run(ethernet(ipv4(tcp(payload=bytes(2000)))), segment=1000)
        counted = self.plane.counters().packets
        self.assertEqual((counted["forwarded"], counted["dropped_no_room"]), (1, 1))
