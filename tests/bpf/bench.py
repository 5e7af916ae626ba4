"""A loaded packet program and its model side by side, for tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.bpf.build import object_path
from lbarray.kernel.addresses import undoers as address_undoers
from lbarray.kernel.frames import VNET_HEADER
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import link
from lbarray.scheduler.abi import COST_OF_ONE, Verdict
from lbarray.scheduler.bpf_plane import BpfPlane, undoers
from lbarray.scheduler.decision import Decision, PacketDecision
from lbarray.scheduler.maglev import Weighted
from lbarray.scheduler.offload import without_tags
from lbarray.scheduler.packet_plane import PacketPlane
from lbarray.scheduler.packet_plane import undoers as packet_undoers
from lbarray.scheduler.table import RowTable
from lbarray.scheduler.too_big import too_big_answer
from lbarray.values import Address, HashBy, PlaneService, ServiceId, WorkerCost, WorkerTarget
from tests.bpf.frames import VIP, VIP6

__all__ = [
    "INDEX",
    "PEER_B",
    "PEER_C",
    "PEER_D",
    "SECRET",
    "SPREAD",
    "TABLE_SIZE",
    "ProgramTestCase",
    "make_packet_plane",
    "make_plane",
    "own_network",
    "through",
]

SECRET = bytes(range(100, 116))
TABLE_SIZE = 251
INDEX = {"a": 0, "b": 1, "c": 2, "d": 3}
PEER_B, PEER_C, PEER_D = (bytes([2, 0, 0, 0, 0, number]) for number in (2, 3, 4))
WEB, SECURE = ServiceId(VIP, 80), ServiceId(VIP, 443)
WEB6, SECURE6 = ServiceId(VIP6, 80), ServiceId(VIP6, 443)
QUIC, QUIC6 = ServiceId(VIP, 443, "udp"), ServiceId(VIP6, 443, "udp")
#: Services whose connections go to the less loaded of two.
SPREAD, SPREAD6 = ServiceId(VIP, 8080), ServiceId(VIP6, 8080)


def need_bpf() -> None:
    """Skip without root, unless system tests are required."""
    if os.geteuid() != 0:
        if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
            raise AssertionError("system tests are required, and this is not root")
        raise SkipTest("loading eBPF needs root")


def own_network(test: SynchronousTestCase) -> None:
    """Give this thread a network namespace of its own until the test ends: nobody else's programs or packets."""
    need_bpf()
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(0x40000000):  # CLONE_NEWNET
        os.close(before)
        raise OSError(ctypes.get_errno(), "unshare")

    def back() -> None:
        libc.setns(before, 0x40000000)
        os.close(before)

    test.addCleanup(back)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def make_packet_plane(test: SynchronousTestCase, interface: str = "lo", address: Address | None = None) -> PacketPlane:
    """The plane in Python, not attached."""
    return PacketPlane(
        reactor=MemoryReactorClock(),
        interface=interface,
        table_size=TABLE_SIZE,
        secret=SECRET,
        self_index=0,
        address=address,
        journal=Journal(Path(test.mktemp()), {**packet_undoers(), **address_undoers()}),
    )


def make_plane(
    test: SynchronousTestCase,
    mode: str = "tc",
    interface: str = "lo",
    journal: Journal | None = None,
    address: Address | None = None,
    reactor: Any = None,
) -> BpfPlane:
    """A plane in eBPF on loopback, not attached."""
    return BpfPlane(
        interface=interface,
        mode=mode,
        table_size=TABLE_SIZE,
        secret=SECRET,
        self_index=0,
        address=address,
        journal=journal or Journal(Path(test.mktemp()), undoers()),
        object_path=object_path,
        reactor=reactor,
    )


def through(plane: BpfPlane | PacketPlane, frame: bytes) -> None:
    """Let a frame pass through a plane, whatever becomes of it."""
    if isinstance(plane, PacketPlane):
        plane.handle(bytes(VNET_HEADER) + frame, [], [])
    else:
        plane.program.test_run(frame)


class ProgramTestCase(SynchronousTestCase):
    """Node a of four: b and c are known, d has rows and is not known. Both VIPs are its own.

    :cvar mode: ``tc``, ``xdp-generic``, or ``packet``: the plane in Python.
    """

    mode = "tc"
    plane: BpfPlane | PacketPlane

    def make(self, address: Address | None = None) -> BpfPlane | PacketPlane:
        """A plane on loopback, not attached."""
        if self.mode == "packet":
            return make_packet_plane(self, address=address)
        return make_plane(self, self.mode, address=address)

    def setUp(self) -> None:
        own_network(self)
        self.plane = self.make()
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.model = PacketDecision(
            mac=link("lo").mac, secret=SECRET, table_size=TABLE_SIZE, self_index=0, held=lambda packet: False
        )
        self.workers = [
            WorkerTarget(0, "a", IPv4Address("192.0.2.1"), b"\2\0\0\0\0\1", local=True),
            WorkerTarget(1, "b", IPv4Address("192.0.2.2"), PEER_B),
            WorkerTarget(2, "c", IPv4Address("192.0.2.3"), PEER_C),
        ]
        self.prepare()
        self.set(workers=self.workers)

    def prepare(self) -> None:
        """Services, a table, and both VIPs active."""
        self.services = [
            PlaneService(WEB),
            PlaneService(SPREAD, least_loaded=True),
            PlaneService(SECURE, HashBy.CLIENT, prefix4=24),
            PlaneService(WEB6),
            PlaneService(SECURE6, HashBy.CLIENT, prefix6=64),
            PlaneService(QUIC),
            PlaneService(SPREAD6, least_loaded=True),
            PlaneService(QUIC6),
        ]
        self.table = RowTable(INDEX, TABLE_SIZE)
        self.set(services=self.services, active=[VIP, VIP6])
        self.members(*INDEX)

    def set(
        self,
        *,
        services: Sequence[PlaneService] | None = None,
        workers: Sequence[WorkerTarget] | None = None,
        active: Sequence[Address] | None = None,
    ) -> None:
        """Tell plane and model."""
        for each in (self.plane, self.model):
            if services is not None:
                each.set_services(services)
            if workers is not None:
                each.set_workers(workers)
            if active is not None:
                each.set_active(active)

    def members(self, *names: str) -> None:
        """These have rows from now on."""
        self.table.update([Weighted(name) for name in names])
        self.plane.apply(self.table.rows)
        self.model.apply(self.table.rows)

    def bear(self, **connections: int) -> None:
        """These workers say that they have so many connections."""
        costs = {INDEX[name]: WorkerCost(COST_OF_ONE * number, COST_OF_ONE) for name, number in connections.items()}
        self.plane.set_costs(costs)
        self.model.set_costs(costs)

    def can_run(self, frame: bytes) -> bool:
        """BPF_PROG_TEST_RUN shows no classifier an IP packet without a whole IP header; the plane in Python leaves
        neighbour discovery to the kernel, which it was not hidden from."""
        if self.mode == "packet" and frame[12:14] == b"\x86\xdd" and frame[20:21] == b"\x3a":
            return frame[54:55] not in (b"\x85", b"\x86", b"\x87", b"\x88", b"\x89")
        shortest = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(frame[12:14], 15)
        return self.mode != "tc" or len(frame) >= shortest

    def comes_again(self, before: bytes, after: bytes) -> bool:
        """The kernel has to see a packet anew: it has another EtherType, or was marked as passed on."""
        return before[12:14] != after[12:14] or len(before) == len(after)

    def through_python(self, plane: PacketPlane, frame: bytes, wanted: Decision) -> None:
        """The plane in Python sends, hands up or drops what the model says."""
        out: list[bytes] = []
        up: list[bytes] = []
        header = bytes(VNET_HEADER)
        plane.handle(header + frame, out, up)
        changed = wanted.frame or frame
        _, plain = without_tags(header, changed)
        expected_up = [] if wanted.verdict.leaves or wanted.verdict.drops else [header + bytes(12) + plain[12:]]
        if wanted.verdict is Verdict.PASSED_ELSEWHERE or self.is_for_kernel(frame):
            expected_up = []
        expected_out = [header + changed] if wanted.verdict.leaves else []
        if wanted.fits:
            expected_out = [header + too_big_answer(frame, wanted.fits, link("lo").mac)]
        if (out, up) != (expected_out, expected_up):
            self.fail(f"{wanted.verdict} {changed[:120].hex()} but {out}, {up}\n for {frame[:120].hex()}")

    def is_for_kernel(self, frame: bytes) -> bool:
        """Neither a VIP's nor in a tunnel, so that the kernel has seen it."""
        return False

    def run_both(self, frame: bytes) -> Decision:
        """What both make of a frame, which is the same."""
        wanted = self.model.decide(frame)
        if isinstance(self.plane, PacketPlane):
            self.through_python(self.plane, frame, wanted)
            return wanted
        code, out, _ = self.plane.program.test_run(frame)
        expected, expected_code = wanted.frame or frame, 7 if wanted.verdict.leaves else 0xFFFFFFFF
        if self.mode == "tc":
            if wanted.verdict.drops:
                expected_code = 2
            elif wanted.verdict is Verdict.PASSED_ELSEWHERE:
                pass
            elif wanted.frame and not wanted.verdict.leaves and self.comes_again(frame, wanted.frame):
                # To be seen by the kernel with its new EtherType it comes in again, from ourselves.
                expected, expected_code = link("lo").mac * 2 + expected[12:], 7
        else:
            expected_code = 3 if wanted.verdict.leaves else 1 if wanted.verdict.drops else 2
        if code != expected_code or out != expected:
            self.fail(
                f"{wanted.verdict} {expected[:120].hex()} but {code}, {out[:120].hex()}\n for {frame[:120].hex()}"
            )
        return wanted

    def verdict(self, frame: bytes) -> str:
        """The verdict of both, and that it was counted once."""
        before = self.plane.counters().packets
        wanted = self.run_both(frame)
        counted = {name: number - before[name] for name, number in self.plane.counters().packets.items()}
        counted.pop("answered_too_big")
        self.assertEqual({name: n for name, n in counted.items() if n}, {wanted.verdict.name.lower(): 1})
        return wanted.verdict.name

    def tally(self, decisions: Sequence[Decision]) -> dict[str, int]:
        """How many decisions there were of each verdict."""
        counted = {verdict.name.lower(): 0 for verdict in Verdict} | {"answered_too_big": 0}
        for decision in decisions:
            counted[decision.verdict.name.lower()] += 1
        return counted
