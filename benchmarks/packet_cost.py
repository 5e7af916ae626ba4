"""What the packet program costs, beside one that only swaps MAC addresses: ``python -m benchmarks packet_cost``

Nanoseconds by BPF_PROG_TEST_RUN, each a million runs on a frame of 64 octets in this process's own network namespace.
A run leaves the frame changed, so a third program gives it its beginning back and calls the measured one: it costs all
of them the same, and what a program that returns at once takes is printed too. Each case is measured right after the
swap on the same frame. Every packet is counted, by service and worker, as in real use.

A *hit* is a packet of a connection that the scheduler remembers, in a row that has moved; a *miss* one whose row alone
says where it goes. A SYN writes the memory. At the worker, a packet of a row that another worker had before may belong
to that one: the kernel is asked at the first packet of each connection after rows have moved, and its answer is
remembered. So what the second chance takes of a connection is also shown by the packet, with ten packets each.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import subprocess
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

import attrs

from benchmarks.harness import CONTENDER_CPU, ROUNDS, Row, ratio_table
from lbarray.bpf.build import compile_program, object_path
from lbarray.kernel.journal import Journal
from lbarray.kernel.libbpf import ObjectFile, Program
from lbarray.scheduler.abi import COST_OF_ONE, NOBODY, ROW, U32
from lbarray.scheduler.bpf_plane import BpfPlane, undoers
from lbarray.values import HashBy, PlaneService, ServiceId, WorkerCost, WorkerTarget

REPEAT = 1_000_000
#: As ``struct beginning`` in replay.bpf.c.
BEGINNING = struct.Struct("=IBx6s4x8s")
TABLE_SIZE = 65537
VIP = IPv4Address("192.0.2.100")
#: Ports of a service that goes by its rows, and of one with ``least_loaded``.
PLAIN, CHOSEN = 80, 81
OWN = bytes(6)  # loopback's
ROUTER, PEER, OTHER = (bytes([2, 0, 0, 0, 0, number]) for number in (0x99, 2, 3))
SYN, ACK = 2, 16


@attrs.frozen
class Case:
    """A kind of packet.

    :ivar now: who has every row, and ``before``: who had it earlier; node 0 is this one.
    :ivar vary: after so many packets it is another connection's turn: a million of them; 0: all are of one.
    :ivar remembered: the connection began at worker 1 before the row moved.
    :ivar begins_here: it began at this node after the row moved.
    :ivar choice: of a service with ``least_loaded``: it has a second row, and half of all rows have another, less
        loaded worker.
    """

    name: str
    source: bytes = ROUTER
    now: int = 1
    before: int = NOBODY
    flags: int = ACK
    vary: int = 0
    remembered: bool = False
    begins_here: bool = False
    choice: bool = False


CASES = (
    Case("hit: row that moved, connection remembered", now=2, before=1, remembered=True),
    Case("miss: row that never moved", before=NOBODY),
    Case("miss: row that moved, connection unknown", before=2),
    Case("first packet of a connection: memory written", flags=SYN, vary=1),
    Case("at the worker, row that never moved", source=PEER, now=0),
    Case("at the worker, row that moved, connection here", source=PEER, now=0, before=1, begins_here=True),
    Case("second chance, passed on as before", source=PEER, now=0, before=1),
    Case("second chance, the kernel asked", source=PEER, now=0, before=1, vary=1),
    Case("second chance, ten packets of each connection", source=PEER, now=0, before=1, vary=10),
    Case("least loaded: first packet of a connection", flags=SYN, vary=1, choice=True),
    Case("least loaded: connection remembered", choice=True, remembered=True),
    Case("least loaded: connection unknown", choice=True),
    Case("least loaded: at the worker, connection here", source=PEER, now=0, before=1, begins_here=True, choice=True),
    Case("least loaded: second chance, passed on as before", source=PEER, now=0, before=1, choice=True),
)


_NUMBERS = itertools.count()


def main() -> None:
    """XDP and tc, the best of several rounds each."""
    os.sched_setaffinity(0, {CONTENDER_CPU})
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), "unshare: run it as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind, mode in (("xdp", "xdp-generic"), ("tc", "tc")):
            _measure(kind, mode, Path(folder))


def _measure(kind: str, mode: str, folder: Path) -> None:
    replay = ObjectFile(compile_program(Path(__file__).parent / "replay.bpf.c", folder / "replay.o"))
    for other in {"xdp", "tc"} - {kind}:  # a map of programs takes one kind of them
        for program in ("replay", "mac_swap", "nothing"):
            replay.leave_out(f"{program}_{other}")
    replay.load()
    journal = Journal(folder / f"journal-{mode}", undoers())
    plane = BpfPlane(
        interface="lo",
        mode=mode,
        table_size=TABLE_SIZE,
        secret=bytes(range(16)),
        self_index=0,
        journal=journal,
        object_path=object_path,
    )
    plane.attach()
    try:
        plane.set_services(
            [
                PlaneService(ServiceId(VIP, PLAIN), HashBy.CONNECTION),
                PlaneService(ServiceId(VIP, CHOSEN), HashBy.CONNECTION, least_loaded=True),
            ]
        )
        plane.set_workers(
            [
                WorkerTarget(0, "a", IPv4Address("192.0.2.1"), OWN, local=True),
                WorkerTarget(1, "b", IPv4Address("192.0.2.2"), PEER),
                WorkerTarget(2, "c", IPv4Address("192.0.2.3"), OTHER),
            ]
        )
        plane.set_costs({1: WorkerCost(1 << 40, COST_OF_ONE), 2: WorkerCost(0, COST_OF_ONE)})
        plane.set_active([VIP])
        names = ("MAC swap", "returns at once", *(case.name for case in CASES))
        rows: dict[str, list[Row]] = {name: [] for name in names}
        for _ in range(ROUNDS):
            rows["returns at once"].append({"ns": _run(replay, kind, replay.program(f"nothing_{kind}"), CASES[0])})
            for case in CASES:
                # Beside each case: the machine may be quicker now than a moment ago.
                swap = _run(replay, kind, replay.program(f"mac_swap_{kind}"), case)
                rows["MAC swap"].append({"ns": swap})
                rows[case.name].append({"ns": _case(replay, kind, plane, case)})
        ratio_table("packet_cost", f"{kind}, nanoseconds per packet", rows, against="MAC swap", columns=["ns"])
    finally:
        plane.detach()
        replay.close()


def _case(replay: ObjectFile, kind: str, plane: BpfPlane, case: Case) -> float:
    if case.remembered:  # it begins while the row is still its worker's
        plane.apply(_rows(case, 1, NOBODY))
        plane.program.test_run(_frame(attrs.evolve(case, flags=SYN)))
    plane.apply(_rows(case, case.now, case.before))
    if case.begins_here:
        plane.program.test_run(_frame(attrs.evolve(case, flags=SYN)))
    return _run(replay, kind, plane.program, case)


def _rows(case: Case, now: int, before: int) -> bytes:
    rows = [ROW.pack(now, before, NOBODY, NOBODY)] * TABLE_SIZE
    if case.choice and case.source == ROUTER:
        rows[::2] = [ROW.pack(2, before, NOBODY, NOBODY)] * len(rows[::2])
    return b"".join(rows)


def _run(replay: ObjectFile, kind: str, program: Program, case: Case) -> float:
    frame = _frame(case)
    count = next(_NUMBERS) * REPEAT & 0xFFFFFFFF  # connections that no run before had
    replay.map("measured").update(U32.pack(0), U32.pack(program.fd))
    replay.map("beginnings").update(U32.pack(0), BEGINNING.pack(count, case.vary, frame[:6], frame[6:14]))
    _, _, nanoseconds = replay.program(f"replay_{kind}").test_run(frame, REPEAT)
    return float(nanoseconds)


def _frame(case: Case) -> bytes:
    port = 2000 + 2 * [each.name for each in CASES].index(case.name)  # odd ones are of those that vary
    service = CHOSEN if case.choice else PLAIN
    tcp = struct.pack("!HHIIBBHHH", port, service, 1, 1, 0x50, case.flags, 1000, 0, 0) + bytes(10)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 7, 0x4000, 64, 6, 0)
    return OWN + case.source + b"\x08\x00" + ip + IPv4Address("198.51.100.7").packed + VIP.packed + tcp


if __name__ == "__main__":
    main()
