"""What the packet program forwards or drops as XDP can be seen."""

from __future__ import annotations

import os
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.bpf.build import compile_program
from lbarray.errors import SystemRefused
from lbarray.kernel.attachments import xdp_on
from lbarray.kernel.capture import Bounds, capture_packets
from lbarray.kernel.libbpf import maps_of
from lbarray.scheduler.abi import NOBODY, ROW, U32
from lbarray.scheduler.tap import XdpTap
from lbarray.values import HashBy, PlaneService, ServiceId, WorkerTarget
from tests.bpf.bench import PEER_B, TABLE_SIZE, make_plane, own_network
from tests.bpf.frames import OTHER, VIP, web


class TapTests(SynchronousTestCase):
    """On loopback, in generic XDP; every row is of b, which is another node."""

    def setUp(self) -> None:
        own_network(self)
        self.plane = make_plane(self, "xdp-generic")
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.plane.set_services([PlaneService(ServiceId(VIP, 80), HashBy.CONNECTION)])
        self.plane.set_workers([WorkerTarget(1, "b", IPv4Address("192.0.2.2"), PEER_B)])
        self.plane.set_active([VIP])
        self.plane.apply(ROW.pack(1, NOBODY, NOBODY, NOBODY) * TABLE_SIZE)

    def tap(self, sample: int = 1) -> XdpTap:
        tap = XdpTap("lo", sample)
        self.addCleanup(tap.close)
        return tap

    def test_seen(self) -> None:
        """A frame that is forwarded is seen as it leaves, one that is dropped as it came; what passes up is not."""
        tap = self.tap()
        frames = [web(), web(flags=0), web(to=OTHER)]
        forwarded, dropped, _ = [self.plane.program.test_run(frame)[1] for frame in frames]
        self.assertEqual(tap.read(), [(forwarded, len(forwarded)), (dropped, len(dropped))])
        self.assertEqual(forwarded[:6], PEER_B)
        self.assertEqual((tap.read(), tap.missed()), ([], 0))

    def test_long(self) -> None:
        """Of a long one the beginning is seen, and how long it is."""
        tap = self.tap()
        frame = web() + bytes(3000)
        self.plane.program.test_run(frame)
        ((seen, length),) = tap.read()
        self.assertEqual((len(seen), length), (2048, len(frame)))

    def test_sample(self) -> None:
        """One of so many, by lot."""
        tap = self.tap(sample=50)
        self.plane.program.test_run(web(flags=0), 10_000)
        self.assertTrue(50 < len(tap.read()) + tap.missed() < 1000)

    def test_no_room(self) -> None:
        """Those that nobody takes in time are counted, by the next record of the same processor."""
        self.addCleanup(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        tap = self.tap()
        self.plane.program.test_run(web(flags=0), 20_000)
        seen = len(tap.read())
        self.plane.program.test_run(web())
        seen += len(tap.read())
        self.assertGreater(tap.missed(), 500)
        self.assertEqual(seen + tap.missed(), 20_001)

    def test_file(self) -> None:
        """They are written like those that the kernel's taps show."""
        tap, path = self.tap(), Path(self.mktemp())
        self.plane.program.test_run(web(flags=0), 3)
        written, missed = capture_packets("lo", {VIP}, path, Bounds(packets=3, seconds=5, octets=40), tap)
        self.assertEqual((written, missed, path.stat().st_size), (3, 0, 24 + 3 * (16 + 40)))

    def test_nothing_remains(self) -> None:
        """When it is closed the program is alone again."""
        tap = self.tap()
        maps = maps_of(xdp_on("lo"))
        for each in maps.values():
            self.addCleanup(os.close, each.fd)
        sample = maps[".data.sampling"]
        self.assertEqual(sample.lookup(U32.pack(0), 4), U32.pack(1))
        tap.close()
        self.assertEqual(sample.lookup(U32.pack(0), 4), U32.pack(0))
        self.plane.program.test_run(web())
        self.assertEqual((tap.read(), tap.fileno()), ([], -1))

    def test_others_program(self) -> None:
        """A program that is not ours is not looked at."""
        self.plane.detach()
        source = Path(__file__).parent.parent.parent / "benchmarks" / "xdp_pass.bpf.c"
        compiled = compile_program(source, Path(self.mktemp()))
        subprocess.run(["ip", "link", "set", "lo", "xdpgeneric", "obj", str(compiled), "sec", "xdp"], check=True)
        self.assertRaises(SystemRefused, self.tap)
