"""The packet plane in Python: the contract of planes, and the same decisions by its short way."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.frames import VNET_HEADER, filter_for
from lbarray.kernel.links import link
from lbarray.scheduler.abi import Verdict
from lbarray.scheduler.decision import PacketDecision
from lbarray.scheduler.maglev import Weighted
from lbarray.scheduler.offload import without_tags
from lbarray.scheduler.packet_plane import PacketPlane
from lbarray.scheduler.table import RowTable
from lbarray.testing import PlaneSuite
from lbarray.values import Address, HashBy, PlaneService, WorkerTarget
from tests.bpf.bench import INDEX, PEER_B, PEER_C, SECRET, SECURE, TABLE_SIZE, WEB, make_packet_plane, own_network
from tests.bpf.frames import ACK, OTHER, SYN, VIP, VIP6, ethernet, ipv4, ipv6, random_frame, tcp, udp, web, web6

HEADER = bytes(VNET_HEADER)


class PacketPlaneTests(PlaneSuite, SynchronousTestCase):
    """It keeps the contract."""

    ROWS = TABLE_SIZE

    def setUp(self) -> None:
        own_network(self)

    def make_plane(self) -> PacketPlane:
        return make_packet_plane(self)


class DecisionTests(SynchronousTestCase):
    """Frames in, frames out and up."""

    def setUp(self) -> None:
        own_network(self)
        self.plane = make_packet_plane(self)
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.model = PacketDecision(
            mac=link("lo").mac, secret=SECRET, table_size=TABLE_SIZE, self_index=0, held=lambda packet: False
        )
        table = RowTable(INDEX, TABLE_SIZE)
        table.update([Weighted(name) for name in "bc"])
        table.update([Weighted(name) for name in "abc"])
        for each in (self.plane, self.model):
            each.set_services([PlaneService(WEB), PlaneService(SECURE, HashBy.CLIENT)])
            each.set_workers(
                [
                    WorkerTarget(0, "a", ip_address("192.0.2.1"), b"\2\0\0\0\0\1", local=True),
                    WorkerTarget(1, "b", ip_address("192.0.2.2"), PEER_B),
                    WorkerTarget(2, "c", ip_address("192.0.2.3"), PEER_C),
                ]
            )
            each.apply(table.rows)
            each.set_active([VIP])

    def handled(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        out: list[bytes] = []
        up: list[bytes] = []
        self.plane.handle(HEADER + frame, out, up)
        return out, up

    def wanted(self, frame: bytes) -> tuple[list[bytes], list[bytes]]:
        decision = self.model.decide(frame)
        changed = decision.frame or frame
        if decision.verdict.leaves:
            return [HEADER + changed], []
        _, plain = without_tags(HEADER, changed)
        return [], [] if decision.verdict.drops else [HEADER + bytes(12) + plain[12:]]

    def test_random(self) -> None:
        """Whichever way a frame takes here, its fate is the model's; most take the short one."""
        chance = random.Random(4)
        for _ in range(5000):
            frame = random_frame(chance, [PEER_B, PEER_C])
            self.assertEqual(self.handled(frame), self.wanted(frame), frame.hex())
        for port in range(50000, 50200):
            for flags in (SYN, ACK, ACK, ACK | 1, ACK | 4, SYN | ACK):
                frame = web(sport=port, flags=flags)
                self.assertEqual(self.handled(frame), self.wanted(frame))

    def test_counted_alike_by_both_ways(self) -> None:
        """The short way counts as the long one does."""
        for _ in range(4):
            self.handled(web())
        counted = self.plane.counters()
        shares = counted.shares[WEB]
        self.assertEqual([(share.packets, share.octets) for share in shares.values()], [(4, 4 * len(web()))])
        self.assertEqual(counted.packets["forwarded"] + counted.packets["passed_local"], 4)

    def test_short_way_checks(self) -> None:
        """A bad segment of a known connection is dropped all the same."""
        self.handled(web())
        for bad in (
            ethernet(ipv4(tcp(offset=4))),
            ethernet(ipv4(tcp(offset=15))),
            ethernet(ipv4(tcp(), length=400)),
            ethernet(ipv4(tcp(flags=0))),
            ethernet(ipv4(tcp(), fragment=0x2000 | 3)),
        ):
            self.assertEqual(self.handled(bad), ([], []), bad.hex())

    def test_short_way_and_short_packets(self) -> None:
        """However little comes of a known connection, it is dropped: it ends nobody's work."""
        frame = web()
        self.handled(frame)
        for length in range(14 + 20, len(frame)):
            self.assertEqual(self.handled(frame[:length]), ([], []), length)

    def test_new_rows_are_taken_at_once(self) -> None:
        """What the short way knew is forgotten with the rows."""
        self.handled(web())
        self.plane.apply(struct.pack("=4H", 2, 0xFFFF, 0xFFFF, 0xFFFF) * TABLE_SIZE)
        self.assertEqual(self.handled(web())[0][0][VNET_HEADER:][:6], PEER_C)

    def test_begins_anew(self) -> None:
        """A connection that begins anew goes where its row is now, whatever the short way knew of the one before."""
        rows = [struct.pack("=4H", *row) * TABLE_SIZE for row in ((1, *[0xFFFF] * 3), (2, 1, *[0xFFFF] * 2))]
        self.plane.apply(rows[0])
        self.handled(web(flags=SYN))
        self.plane.apply(rows[1])
        for flags, peer in ((ACK, PEER_B), (ACK, PEER_B), (SYN, PEER_C), (ACK, PEER_C)):
            self.assertEqual(self.handled(web(flags=flags))[0][0][VNET_HEADER:][:6], peer)

    def test_neighbour_discovery(self) -> None:
        """The kernel answers it; it was not hidden, and must not come twice."""
        solicitation = ethernet(ipv6(b"\x87" + bytes(23), header=58))
        self.assertEqual(self.handled(solicitation), ([], []))

    def test_flows(self) -> None:
        """Connections are listed."""
        self.handled(web(sport=1234, flags=SYN))
        (flow,) = self.plane.flows(10)
        self.assertEqual((flow.port, flow.service), (1234, WEB))


class FilterTests(SynchronousTestCase):
    """What the socket's filter takes, by an interpreter of the instructions that it uses."""

    ADDRESSES: tuple[Address, ...] = (VIP, ip_address("192.0.2.7"), VIP6, ip_address("2001:db8::7"))

    def takes(
        self, frame: bytes, addresses: tuple[Address, ...] = ADDRESSES, tunnel_end: Address | None = None
    ) -> bool:
        program = list(struct.iter_unpack("HBBI", filter_for(addresses, tunnel_end)))
        at, accumulator = 0, 0
        while True:
            code, yes, no, k = program[at]
            at += 1
            if code == 0x06:
                return bool(k)
            if code in (0x20, 0x28, 0x30):
                size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
                if len(frame) < k + size:
                    return False
                accumulator = int.from_bytes(frame[k : k + size], "big")
            elif code == 0x05:
                at += k
            else:
                at += yes if accumulator == k else no

    def test_addresses(self) -> None:
        """Packets to each of the addresses, and to no other."""
        for address in self.ADDRESSES:
            frame = web(to=address) if address.version == 4 else web6(to=address)
            self.assertTrue(self.takes(frame))
            self.assertFalse(self.takes(frame, tuple(each for each in self.ADDRESSES if each != address)))
            self.assertFalse(self.takes(frame, ()))

    def test_many(self) -> None:
        """However many there are: jumps are long enough."""
        many = tuple(ip_address(f"10.0.{number}.1") for number in range(200))
        many6 = tuple(ip_address(f"2001:db8::{number:x}") for number in range(1, 200))
        self.assertTrue(self.takes(web(to=many[-1]), many + many6))
        self.assertTrue(self.takes(web6(to=many6[-1]), many + many6))

    def test_tunnels(self) -> None:
        """What is in tunnels to this node, and nothing else that is for it."""
        for end in (ip_address("192.0.2.1"), ip_address("2001:db8::1")):
            for protocol, content, wanted in (
                (4, bytes(40), True),
                (41, bytes(40), True),
                (17, udp(40000, 6080), True),
                (17, udp(40000, 6081), False),
                (6, tcp(), False),
            ):
                if end.version == 4:
                    frame = ethernet(ipv4(content, to=end, protocol=protocol))
                else:
                    frame = ethernet(ipv6(content, to=end, header=protocol))
                self.assertEqual(self.takes(frame, tunnel_end=end), wanted, (end, protocol))
                self.assertFalse(self.takes(frame))
            self.assertTrue(self.takes(web(), tunnel_end=end))
            self.assertTrue(self.takes(web6(), tunnel_end=end))
            self.assertFalse(self.takes(web(to=OTHER), tunnel_end=end))

    def test_marked(self) -> None:
        """What another node passed on is always taken: the kernel does not know it."""
        self.assertTrue(self.takes(ethernet(ipv4(tcp()), ethertype=0x88B5), ()))
        self.assertTrue(self.takes(ethernet(ipv4(tcp()), ethertype=0x88B6), ()))
        self.assertFalse(self.takes(ethernet(bytes(40), ethertype=0x0806)))


class VerdictTests(SynchronousTestCase):
    """Kinds of verdicts."""

    def test_kinds(self) -> None:
        """A packet leaves, is dropped, or passes up: never two of these."""
        for verdict in Verdict:
            kinds = (verdict.leaves, verdict.drops, verdict.name.startswith("PASSED_") and not verdict.leaves)
            self.assertEqual(sum(kinds), 1, verdict)
