"""Probes: their packets, what follows from their answers, and the service that sends them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.scheduler.abi import mapped
from lbarray.scheduler.probe import Answer, Heard, PathTable, Probe, Verdict, able_workers, read_answer, reset, syn
from lbarray.scheduler.prober import FULL_SIZED_EVERY, ProbeService, frame_for
from lbarray.scheduler.tunnel import find_tunnel, outer_length
from lbarray.telemetry.counters import Counters
from lbarray.testing import MemoryMembers
from lbarray.values import NodeReport, Role, ServiceId, WorkerTarget

WEB = ServiceId(IPv4Address("192.0.2.100"), 80)
SECURE = ServiceId(IPv4Address("192.0.2.100"), 443)
WEB6 = ServiceId(IPv6Address("2001:db8::100"), 80)
OWN = IPv4Address("192.0.2.1")
OWN6 = IPv6Address("2001:db8::1")
PROBE = Probe(WEB, OWN, 61001, 0xFFFFFFFF)
PROBE6 = Probe(WEB6, OWN6, 61001, 7)


def ones_sum(data: bytes) -> int:
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def answer(probe: Probe, flags: int, acknowledged: int | None = None) -> bytes:
    """What a worker's kernel sends back."""
    ack = (probe.sequence + 1) & 0xFFFFFFFF if acknowledged is None else acknowledged
    segment = struct.pack("!HHIIBBHHH", probe.service.port, probe.port, 99, ack, 0x50, flags, 0, 0, 0)
    ends = probe.service.address.packed + probe.source.packed
    if probe.source.version == 6:
        return struct.pack("!IHBB", 0x60000000, len(segment), 6, 64) + ends + segment
    return struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + ends + segment


class PacketTests(SynchronousTestCase):
    """Octets."""

    def test_checksums(self) -> None:
        """Kernels drop segments whose sums are wrong; ours are right, small, odd, full-sized and of both families."""
        for probe in (PROBE, PROBE6):
            for packet in (syn(probe), syn(probe, 101), syn(probe, 1500), reset(probe)):
                head = 20 if probe.source.version == 4 else 40
                if head == 20:
                    self.assertEqual(ones_sum(packet[:20]), 0xFFFF)
                    self.assertEqual(struct.unpack_from("!H", packet, 2)[0], len(packet))
                pseudo = probe.source.packed + probe.service.address.packed
                pseudo += struct.pack("!IHH", len(packet) - head, 0, 6)
                self.assertEqual(ones_sum(pseudo + packet[head:]), 0xFFFF)

    def test_size(self) -> None:
        """A full-sized probe is as long as was asked for, and must not be cut into fragments."""
        self.assertEqual([len(syn(PROBE, size)) for size in (0, 10, 1500)], [44, 44, 1500])
        self.assertEqual(len(syn(PROBE6, 1500)), 1500)
        self.assertEqual(syn(PROBE, 1500)[6] & 0x40, 0x40)

    def test_reset_follows_the_syn(self) -> None:
        """The reset's sequence number is the one that a half-open connection accepts, also past the end of numbers."""
        self.assertEqual(struct.unpack_from("!I", reset(PROBE), 24)[0], 0)

    def test_answers(self) -> None:
        """A SYN/ACK is an acceptance, a reset a refusal; anything else is no answer."""
        for probe in (PROBE, PROBE6):
            for flags, wanted in ((0x12, Answer.ACCEPTED), (0x14, Answer.REFUSED)):
                heard = read_answer(answer(probe, flags))
                assert heard is not None
                self.assertEqual(heard.answer, wanted)
                self.assertTrue(heard.fits(probe))
            for flags in (0x02, 0x10, 0x18, 0x11):
                self.assertIsNone(read_answer(answer(probe, flags)))

    def test_forged_answers(self) -> None:
        """Who did not see the probe cannot answer it."""
        for forged in (
            answer(PROBE, 0x12, acknowledged=1),
            answer(attrs.evolve(PROBE, port=61002), 0x12),
            answer(attrs.evolve(PROBE, service=SECURE), 0x12),
        ):
            heard = read_answer(forged)
            assert heard is not None
            self.assertFalse(heard.fits(PROBE))

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=80))
    def test_noise(self, packet: bytes) -> None:
        """Any octets may come in."""
        for packed in (packet, b"\x45" + packet, b"\x60" + packet):
            read_answer(packed)

    def test_cut_off(self) -> None:
        """Wherever a packet ends, reading it does not."""
        for whole in (answer(PROBE, 0x12), answer(PROBE6, 0x12)):
            for end in range(len(whole)):
                self.assertIsNone(read_answer(whole[:end]))


class FrameTests(SynchronousTestCase):
    """On the wire."""

    def test_frames(self) -> None:
        """A probe goes to the worker's MAC address, or in a tunnel out of which the worker takes it."""
        own, router = b"\2\0\0\0\0\1", b"\2\0\0\0\0\x99"
        for probe, kind in ((PROBE, b"\x08\x00"), (PROBE6, b"\x86\xdd")):
            packet = syn(probe, 400)
            target = WorkerTarget(1, "b", IPv4Address("198.51.100.4"), router)
            self.assertEqual(frame_for(packet, target, own, mapped(OWN)), router + own + kind + packet)
            for tunnel in ("gue", "ipip"):
                beyond = attrs.evolve(target, tunnel=tunnel)
                frame = frame_for(packet, beyond, own, mapped(OWN))
                self.assertEqual(len(frame), 14 + outer_length(beyond) + 400)
                found = find_tunnel(frame, mapped(target.address), {mapped(OWN): 1})
                assert found is not None
                self.assertEqual(found.frame[12:], kind + packet)


class PathTableTests(SynchronousTestCase):
    """Verdicts."""

    def setUp(self) -> None:
        self.table = PathTable(fall=3, rise=2)
        self.table.watch({"b": 1}, [WEB])

    def verdict(self, service: ServiceId = WEB) -> Verdict:
        return self.table.verdicts("b")[service][0]

    def test_one_answer_proves(self) -> None:
        """A worker that was never tried gets nothing; after one answer it may have clients."""
        self.assertEqual(self.table.able(), set())
        self.assertTrue(self.table.passed("b", WEB))
        self.assertEqual(self.table.able(), {"b"})

    def test_fall_and_rise(self) -> None:
        """Three lost in a row, not two; two answered in a row, not one."""
        self.table.passed("b", WEB)
        for _ in range(2):
            self.assertFalse(self.table.failed("b", WEB, "no answer"))
        self.table.passed("b", WEB)
        self.assertEqual([self.table.failed("b", WEB, "no answer") for _ in range(3)], [False, False, True])
        self.assertEqual(self.table.able(), set())
        self.assertFalse(self.table.passed("b", WEB))
        self.assertFalse(self.table.failed("b", WEB, "no answer"))
        self.assertEqual([self.table.passed("b", WEB) for _ in range(2)], [False, True])
        self.assertEqual(self.table.able(), {"b"})

    def test_assumed(self) -> None:
        """What another scheduler has proved counts until three probes say otherwise."""
        self.table.watch({"b": 1, "c": 1}, [WEB], assumed={"c"})
        self.assertEqual(self.table.able(), {"c"})
        for _ in range(3):
            self.table.failed("c", WEB, "no answer")
        self.assertEqual(self.table.able(), set())

    def test_restart(self) -> None:
        """A worker that was restarted has to prove itself anew."""
        self.table.passed("b", WEB)
        self.assertEqual(self.table.watch({"b": 1}, [WEB]), [])
        self.assertEqual(self.table.watch({"b": 2}, [WEB]), [("b", WEB)])
        self.assertEqual(self.table.able(), set())

    def test_every_service(self) -> None:
        """A worker that lost one of its services gets no clients at all."""
        self.table.watch({"b": 1}, [WEB, SECURE])
        for service in (WEB, SECURE):
            self.table.passed("b", service)
        for _ in range(3):
            self.table.failed("b", SECURE, "it refuses")
        self.assertEqual(self.table.able(), set())
        self.assertEqual(self.table.verdicts("b")[SECURE], (Verdict.UNABLE, "it refuses"))

    def test_new_service(self) -> None:
        """A service that the worker has not taken up yet does not take its clients of the others away."""
        self.table.passed("b", WEB)
        self.table.watch({"b": 1}, [WEB, SECURE])
        for _ in range(5):
            self.table.failed("b", SECURE, "it refuses")
        self.assertEqual(self.table.able(), {"b"})
        for _ in range(3):
            self.table.failed("b", WEB, "no answer")
        self.assertEqual(self.table.able(), set())

    def test_gone(self) -> None:
        """Late answers of workers that are not watched any more do nothing."""
        self.table.watch({}, [])
        self.assertFalse(self.table.passed("b", WEB))
        self.assertFalse(self.table.failed("b", WEB, "late"))


def report(
    name: str,
    *,
    able: frozenset[str] | None = None,
    scheduler: bool = False,
    accepting: bool = True,
    draining: bool = False,
) -> NodeReport:
    return NodeReport(
        name=name,
        address=IPv4Address(f"192.0.2.{ord(name) - 96}"),
        mac=bytes([2, 0, 0, 0, 0, ord(name) - 96]),
        roles=Role.SCHEDULER if scheduler else Role.WORKER,
        able=able,
        incarnation=1,
        accepting=accepting,
        draining=draining,
        owned=(WEB.address,) if scheduler else (),
    )


class AbleWorkersTests(SynchronousTestCase):
    """What all nodes compute from the same reports."""

    def able(self, *members: NodeReport) -> list[str]:
        return [found.name for found in able_workers(members)]

    def test_nobody_probes(self) -> None:
        """Then a worker's own word counts."""
        self.assertEqual(self.able(report("a"), report("b"), report("c", accepting=False)), ["a", "b"])

    def test_scheduler_says_no(self) -> None:
        """Whom the scheduler could not prove gets nothing; of itself it does not judge."""
        self.assertEqual(
            self.able(report("a", able=frozenset("b"), scheduler=True), report("b"), report("c")), ["a", "b"]
        )

    def test_only_schedulers_judge(self) -> None:
        """What a node proved while it was scheduler is of yesterday."""
        self.assertEqual(self.able(report("a", able=frozenset()), report("b")), ["a", "b"])

    def test_one_that_has_yielded(self) -> None:
        """It may know only of those of its own part of the network."""
        yielded = attrs.evolve(report("c", able=frozenset("cd"), scheduler=True), owned=())
        self.assertEqual(
            self.able(report("a", able=frozenset("abc"), scheduler=True), report("b"), yielded), ["a", "b", "c"]
        )

    def test_several_schedulers(self) -> None:
        """Half of them is enough, less is not: one with a broken interface does not empty the array."""
        all_three, two = frozenset("abc"), frozenset("ab")
        self.assertEqual(
            self.able(
                report("a", able=two, scheduler=True),
                report("b", able=all_three, scheduler=True),
                report("c", able=all_three, scheduler=True),
            ),
            ["a", "b", "c"],
        )
        self.assertEqual(
            self.able(report("a", able=two, scheduler=True), report("b", able=all_three, scheduler=True), report("c")),
            ["a", "b"],
        )

    def test_draining(self) -> None:
        """Proved or not, who drains gets nothing."""
        self.assertEqual(self.able(report("a", able=frozenset("b"), scheduler=True), report("b", draining=True)), ["a"])


def is_syn(packet: bytes) -> bool:
    """A probe, not the reset that takes one back."""
    return packet[53 if packet[0] >> 4 == 6 else 33] == 0x02


class MemoryWire:
    """A wire whose workers answer as a test says.

    :ivar answers: by worker's name, the flags of its answer; missing means silence.
    """

    mtu = 1500

    def __init__(self, heard: Callable[[Heard], None], answers: dict[str, int]) -> None:
        self.heard = heard
        self.answers = answers
        self.sent: list[tuple[str, bytes]] = []
        self.lose_full = False
        self.closed = False

    def send(self, packet: bytes, to: WorkerTarget) -> bool:
        self.sent.append((to.name, packet))
        flags = self.answers.get(to.name)
        if is_syn(packet) and flags is not None and not (self.lose_full and len(packet) == self.mtu):
            six = packet[0] >> 4 == 6
            own, vip = (
                (ip_address(packet[at : at + 16]) for at in (8, 24))
                if six
                else (ip_address(packet[at : at + 4]) for at in (12, 16))
            )
            port, service_port, sequence = struct.unpack_from("!HHI", packet, 40 if six else 20)
            heard = read_answer(answer(Probe(ServiceId(vip, service_port), own, port, sequence), flags))
            assert heard is not None
            self.heard(heard)
        return True

    def close(self) -> None:
        self.closed = True

    def resets(self) -> int:
        return sum(not is_syn(packet) for _, packet in self.sent)


class ProbeServiceTests(SynchronousTestCase):
    """Rounds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.members = MemoryMembers(report("a"), report("b"), report("c"))
        self.answers = {"b": 0x12, "c": 0x12}
        self.wires: list[MemoryWire] = []
        self.assumed: set[str] = set()
        self.addresses: dict[int, IPv4Address | IPv6Address] = {4: OWN}
        self.changes: list[frozenset[str] | None] = []
        self.service = ProbeService(
            clock=self.clock,
            node_name="a",
            addresses=lambda: self.addresses,
            members=self.members,
            services=[WEB, WEB6],
            target_for=lambda report: WorkerTarget(0, report.name, report.address, report.mac),
            interval_s=1.0,
            fall=3,
            rise=2,
            assumed=lambda: self.assumed,
            changed=lambda: self.changes.append(self.service.able),
            open_wire=self.open_wire,
            counters=Counters(),
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def open_wire(self, addresses: Iterable[object], heard: Callable[[Heard], None]) -> MemoryWire:
        self.wires.append(MemoryWire(heard, self.answers))
        return self.wires[-1]

    def test_idle_while_backup(self) -> None:
        """Who is not scheduler probes nobody and judges nobody."""
        self.clock.pump([1.0] * 3)
        self.assertEqual((self.wires, self.service.able), ([], None))

    def test_proves_at_once(self) -> None:
        """A new scheduler tries everybody at once; every answer is taken back by a reset."""
        self.service.set_active(True)
        self.assertEqual(self.service.able, {"a", "b", "c"})
        self.assertEqual(self.wires[0].resets(), sum(is_syn(packet) for _, packet in self.wires[0].sent))

    def test_both_families(self) -> None:
        """Services of a family in which this node has no address cannot be probed; with one, they are."""
        self.service.set_active(True)
        self.assertEqual({packet[0] >> 4 for _, packet in self.wires[0].sent}, {4})
        self.service.set_active(False)
        self.addresses[6] = IPv6Address("fe80::1")
        self.service.set_active(True)
        self.assertEqual({packet[0] >> 4 for _, packet in self.wires[1].sent}, {4, 6})
        self.assertEqual(self.service.able, {"a", "b", "c"})

    def test_silent_worker(self) -> None:
        """A worker that stops to answer is out after three rounds, and back after two."""
        self.service.set_active(True)
        self.changes.clear()
        silent = self.answers.pop("c")
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.changes, [])
        self.clock.advance(1.0)
        self.assertEqual(self.changes, [{"a", "b"}])
        self.assertIn("c", str(self.service.status()))
        self.answers["c"] = silent
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.changes[1:], [{"a", "b", "c"}])

    def test_refusal(self) -> None:
        """A worker whose kernel refuses is named as that."""
        self.answers["c"] = 0x14
        self.service.set_active(True)
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.service.able, {"a", "b"})
        self.assertIn("refuses", str(self.service.status()))

    def test_assumed(self) -> None:
        """A take-over does not take clients from workers that the former scheduler had proved."""
        self.assumed = {"c"}
        del self.answers["c"]
        self.service.set_active(True)
        self.assertEqual(self.service.able, {"a", "b", "c"})
        self.clock.pump([1.0] * 4)
        self.assertEqual(self.service.able, {"a", "b"})

    def test_new_worker(self) -> None:
        """Whoever joins is tried at once and gets clients as soon as it has answered."""
        self.service.set_active(True)
        self.answers["d"] = 0x12
        self.members.become(*self.members.members(), report("d"))
        self.clock.advance(0)
        self.assertEqual(self.changes[-1], {"a", "b", "c", "d"})

    def test_full_sized(self) -> None:
        """A path that loses what is full-sized is complained of once, and goes on being used."""
        self.service.set_active(True)
        self.wires[0].lose_full = True
        self.clock.pump([1.0] * 2 * (FULL_SIZED_EVERY + 1))
        self.assertEqual(self.service.able, {"a", "b", "c"})
        self.assertEqual(self.service.status()["only_small_packets"], ["b", "c"])
        self.wires[0].lose_full = False
        self.clock.pump([1.0] * FULL_SIZED_EVERY)
        self.assertEqual(self.service.status()["only_small_packets"], [])

    def test_backup_again(self) -> None:
        """Whoever loses the VIP closes its sockets and stops to judge."""
        self.service.set_active(True)
        self.service.set_active(False)
        self.assertEqual((self.service.able, self.wires[0].closed), (None, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_privilege(self) -> None:
        """Without packet sockets nobody is judged: the workers' own word has to do."""

        def refuse(addresses: object, heard: object) -> MemoryWire:
            raise SystemRefused("open a packet socket")

        self.service._open_wire = refuse
        self.service.set_active(True)
        self.assertIsNone(self.service.able)
