"""Packets while tables are changed under them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.bpf.build import object_path
from lbarray.kernel.journal import Journal
from lbarray.scheduler.abi import NOBODY, ROW
from lbarray.scheduler.bpf_plane import BpfPlane, undoers
from lbarray.values import PlaneService, WorkerTarget
from tests.bpf.bench import PEER_B, PEER_C, SECRET, WEB, own_network
from tests.bpf.frames import VIP, web

#: As by default: it takes a while to write.
TABLE_SIZE = 65537
PACKETS = 20_000


class SwapTests(SynchronousTestCase):
    """By tc."""

    mode = "tc"

    def setUp(self) -> None:
        own_network(self)
        self.plane = BpfPlane(
            interface="lo",
            mode=self.mode,
            table_size=TABLE_SIZE,
            secret=SECRET,
            self_index=0,
            journal=Journal(Path(self.mktemp()), undoers()),
            object_path=object_path,
        )
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.plane.set_services([PlaneService(WEB)])
        self.plane.set_workers(
            [
                WorkerTarget(0, "a", VIP, bytes(6), local=True),
                WorkerTarget(1, "b", VIP, PEER_B),
                WorkerTarget(2, "c", VIP, PEER_C),
            ]
        )
        self.plane.set_active([VIP])

    def test_whole_tables(self) -> None:
        """A packet meets the old table or the new one: never both in turn, and never nobody."""
        tables = [ROW.pack(worker, NOBODY, NOBODY, NOBODY) * TABLE_SIZE for worker in (1, 2)]
        self.plane.apply(tables[0])
        sent, sender = self.send()
        swaps = 0
        while os.waitpid(sender, os.WNOHANG) == (0, 0):
            swaps += 1
            self.plane.apply(tables[swaps % 2])
        seen = sent.read_bytes()
        self.assertEqual((len(seen), set(seen)), (PACKETS, {PEER_B[5], PEER_C[5]}))
        turns = sum(now != before for before, now in itertools.pairwise(seen))
        self.assertLessEqual(turns, swaps)

    def send(self) -> tuple[Path, int]:
        """By another process, which shares the program: where it writes the last octet of who got each packet."""
        frames, path = [web(sport=port) for port in range(3000, 3064)], Path(self.mktemp())
        sender = os.fork()
        if not sender:
            try:
                outs = (self.plane.program.test_run(frames[number % 64])[1] for number in range(PACKETS))
                path.write_bytes(bytes(out[5] for out in outs))
            finally:
                os._exit(0)
        return path, sender


class SwapXdpTests(SwapTests):
    """As XDP."""

    mode = "xdp-generic"
