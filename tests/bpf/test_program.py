"""The packet program and its Python oracle decide alike (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.bpf.build import HERE, build, object_path
from lbarray.errors import SystemRefused
from lbarray.kernel.journal import Journal
from lbarray.scheduler import abi
from lbarray.scheduler.bpf_plane import BpfPlane, detach_classifier
from lbarray.scheduler.decision import Decision, View, decide
from lbarray.scheduler.maglev import Weighted
from lbarray.scheduler.table import RowTable
from lbarray.testing import PlaneSuite
from lbarray.values import Address, HashBy, PlaneService, ServiceId, WorkerTarget

VIP, OTHER = IPv4Address("192.0.2.100"), IPv4Address("192.0.2.101")
VIP6 = IPv6Address("2001:db8::100")
WEB, SECURE, WEB6 = ServiceId(VIP, 80), ServiceId(VIP, 443), ServiceId(VIP6, 80)
BOTH: frozenset[Address] = frozenset({VIP, VIP6})
TC_OK, TC_REDIRECT = 0, 7
INDEX = {"a": 0, "b": 1, "c": 2}


def need_bpf() -> None:
    """Skip without root, unless system tests are required."""
    if os.geteuid() != 0:
        if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
            raise AssertionError("system tests are required, and this is not root")
        raise SkipTest("loading eBPF needs root")


def frame(
    source: str = "198.51.100.7",
    sport: int = 40000,
    to: IPv4Address = VIP,
    dport: int = 80,
    *,
    protocol: int = 6,
    options: int = 0,
    fragment: int = 0,
    ether: int = 0x0800,
    cut: int | None = None,
) -> bytes:
    """An Ethernet frame with a TCP segment, or something that is odd in one way."""
    tcp = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 0x50, 0x18, 1000, 0, 0) + b"GET / HTTP/1.1\r\n\r\n"
    length = 20 + 4 * options
    ip = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(tcp), 7, fragment, 64, protocol, 0)
    ip += IPv4Address(source).packed + to.packed + b"\1" * (4 * options)
    whole = b"\2\0\0\0\0\1" + b"\2\0\0\0\0\x99" + struct.pack("!H", ether) + ip + tcp
    return whole[:cut]


def frame6(source: str = "2001:db8:1::7", sport: int = 40000, *, to: IPv6Address = VIP6, header: int = 6) -> bytes:
    """An Ethernet frame with a TCP segment over IPv6."""
    tcp = struct.pack("!HHIIBBHHH", sport, 80, 1, 0, 0x50, 0x18, 1000, 0, 0)
    ip = struct.pack("!IHBB", 6 << 28, len(tcp), header, 64) + IPv6Address(source).packed + to.packed
    return b"\2\0\0\0\0\1" + b"\2\0\0\0\0\x99" + b"\x86\xdd" + ip + tcp


class AbiTests(SynchronousTestCase):
    """abi.h and abi.py say the same."""

    def constant(self, name: str) -> int:
        match = re.search(rf"#define {name} (\d+)", (HERE / "abi.h").read_text())
        assert match is not None
        return int(match[1])

    def test_limits(self) -> None:
        """Map sizes are equal."""
        for name in ("MAX_WORKERS", "MAX_SERVICES", "MAX_ROWS"):
            self.assertEqual(self.constant(name), getattr(abi, name))

    def test_verdicts(self) -> None:
        """Every verdict has the same number and name in both."""
        text = (HERE / "abi.h").read_text()
        found = {name: int(number) for name, number in re.findall(r"\b((?:FORWARDED|PASSED_\w+)) = (\d+)", text)}
        self.assertEqual(found, {verdict.name: int(verdict) for verdict in abi.Verdict})

    def test_sizes(self) -> None:
        """A C compiler finds the sizes that struct finds."""
        names = ["config", "service_key", "service", "row", "worker", "tally"]
        folder = Path(self.mktemp())
        folder.mkdir()
        lines = "".join(f'printf("%zu ", sizeof(struct {name}));' for name in names)
        source = folder / "sizes.c"
        source.write_text(f'#include <stdio.h>\n#include <linux/types.h>\n#include "abi.h"\nint main(){{{lines}}}')
        command = ["clang", "-I", str(HERE), str(source), "-o", str(folder / "sizes")]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise
            raise SkipTest("clang is not installed") from None
        out = subprocess.run([str(folder / "sizes")], check=True, capture_output=True, text=True).stdout
        formats = [abi.CONFIG, abi.SERVICE_KEY, abi.SERVICE, abi.ROW, abi.WORKER, abi.TALLY]
        self.assertEqual([int(size) for size in out.split()], [each.size for each in formats])


def plane_for(test: SynchronousTestCase, table_size: int = 101, seed: int = 7) -> BpfPlane:
    journal = Journal(Path(test.mktemp()), {"classifier": detach_classifier})
    return BpfPlane(interface="lo", table_size=table_size, seed=seed, journal=journal, object_path=object_path)


class BpfPlaneTests(PlaneSuite, SynchronousTestCase):
    """The eBPF plane keeps the contract of IForwardingPlane."""

    def setUp(self) -> None:
        need_bpf()

    def make_plane(self) -> BpfPlane:
        return plane_for(self)

    def test_missing_interface(self) -> None:
        """It is named, with those that there are, and nothing is left behind."""
        plane = BpfPlane(
            interface="nosuch0",
            table_size=101,
            seed=0,
            journal=Journal(Path(self.mktemp()), {}),
            object_path=object_path,
        )
        error: SystemRefused = self.assertRaises(SystemRefused, plane.attach)
        self.assertIn("nosuch0", str(error))
        self.assertIn("lo", error.advice)

    def test_journal(self) -> None:
        """An attached classifier is in the journal until it is detached."""
        journal = Journal(Path(self.mktemp()), {"classifier": detach_classifier})
        plane = BpfPlane(interface="lo", table_size=101, seed=0, journal=journal, object_path=object_path)
        plane.attach()
        self.assertEqual(len(journal.pending()), 1)
        plane.detach()
        self.assertEqual(journal.pending(), ())


class DecisionTests(SynchronousTestCase):
    """Each packet meets the same fate in the kernel and in decision.py."""

    def setUp(self) -> None:
        need_bpf()
        self.plane = plane_for(self)
        self.addCleanup(self.plane.detach)
        self.plane.attach()
        self.services = {WEB: HashBy.CONNECTION, SECURE: HashBy.CLIENT, WEB6: HashBy.CONNECTION}
        self.plane.set_services([PlaneService(service, by) for service, by in self.services.items()])
        self.workers = [
            WorkerTarget(0, "a", IPv4Address("192.0.2.1"), b"\2\0\0\0\0\1", local=True),
            WorkerTarget(1, "b", IPv4Address("192.0.2.2"), b"\2\0\0\0\0\2"),
        ]
        self.plane.set_workers(self.workers)  # c has rows but is not known
        self.table = RowTable(INDEX, 101)
        self.table.update([Weighted(name) for name in INDEX])
        self.plane.apply(self.table.rows)
        self.plane.set_active([VIP, VIP6])

    def view(self, *, active: frozenset[Address] = BOTH) -> View:
        return View(
            active=active,
            mac=b"\0" * 6,
            seed=7,
            table_size=101,
            services=self.services,
            rows={row: self.table.row(row)[0] for row in range(101)},
            workers={worker.index: worker for worker in self.workers},
        )

    def both(self, packet: bytes, *, active: frozenset[Address] = BOTH) -> Decision:
        wanted = decide(packet, self.view(active=active))
        before = self.plane.counters().packets
        code, out, _ = self.plane.program.test_run(packet)
        after = self.plane.counters().packets
        counted = [name for name in after if after[name] != before[name]]
        self.assertEqual(counted, [wanted.verdict.name.lower()])
        forwarded = wanted.verdict is abi.Verdict.FORWARDED
        self.assertEqual(code, TC_REDIRECT if forwarded else TC_OK)
        self.assertEqual(out, wanted.frame if forwarded else packet)
        return wanted

    def test_random_flows(self) -> None:
        """Five hundred flows, both kinds of hash: the same worker, the same frame."""
        chance = random.Random(1)
        seen = set()
        for _ in range(500):
            source = f"198.51.{chance.randrange(256)}.{chance.randrange(1, 255)}"
            packet = frame(source, chance.randrange(1024, 65536), dport=chance.choice((80, 443)))
            seen.add(self.both(packet).verdict)
        self.assertEqual(seen, {abi.Verdict.FORWARDED, abi.Verdict.PASSED_LOCAL, abi.Verdict.PASSED_NO_WORKER})

    def test_client_hash_ignores_the_port(self) -> None:
        """All connections of a client go to one worker of a TLS service."""
        decisions = {self.both(frame(sport=port, dport=443)).worker for port in range(2000, 2030)}
        self.assertEqual(len(decisions), 1)

    def test_connection_hash_spreads(self) -> None:
        """Connections of one client to a plain service go to several."""
        decisions = {self.both(frame(sport=port)).worker for port in range(2000, 2030)}
        self.assertGreater(len(decisions), 1)

    def test_ip_options(self) -> None:
        """The TCP header is found behind options."""
        self.assertEqual(self.both(frame(options=3)).worker, self.both(frame()).worker)

    def test_odd_packets_pass_up(self) -> None:
        """What is not a whole TCP segment for a service is left alone, and counted by reason."""
        cases = {
            "PASSED_NOT_IP": frame(ether=0x0806),
            "PASSED_NOT_TCP": frame(protocol=17),
            "PASSED_FRAGMENT": frame(fragment=0x2000),
            "PASSED_NO_SERVICE": frame(dport=81),
            "PASSED_TRUNCATED": frame(cut=14 + 20 + 10),
        }
        for verdict, packet in cases.items():
            self.assertEqual(self.both(packet).verdict.name, verdict)
        self.assertEqual(self.both(frame(fragment=0x00FF)).verdict, abi.Verdict.PASSED_FRAGMENT)
        self.assertEqual(self.both(frame(to=OTHER)).verdict, abi.Verdict.PASSED_NO_SERVICE)

    def test_inactive(self) -> None:
        """A backup touches nothing."""
        self.plane.set_active([])
        self.assertEqual(self.both(frame(), active=frozenset()).verdict, abi.Verdict.PASSED_INACTIVE)

    def test_owner_of_one_vip(self) -> None:
        """Each VIP has its own owner: packets of those of others are left alone."""
        only = frozenset({VIP6})
        self.plane.set_active(only)
        self.assertEqual(self.both(frame(), active=only).verdict, abi.Verdict.PASSED_INACTIVE)
        self.assertNotEqual(self.both(frame6(), active=only).verdict, abi.Verdict.PASSED_INACTIVE)

    def test_ipv6(self) -> None:
        """Flows of IPv6 clients: the same worker, the same frame, as in Python."""
        seen = {self.both(frame6(f"2001:db8:{number:x}::1", number)).verdict for number in range(1024, 1100)}
        self.assertEqual(seen, {abi.Verdict.FORWARDED, abi.Verdict.PASSED_LOCAL, abi.Verdict.PASSED_NO_WORKER})
        self.assertEqual(self.both(frame6(header=58)).verdict, abi.Verdict.PASSED_NOT_TCP)
        self.assertEqual(self.both(frame6(to=IPv6Address("2001:db8::101"))).verdict, abi.Verdict.PASSED_NO_SERVICE)

    def test_shares_are_counted(self) -> None:
        """Packets and octets by worker."""
        packets = [frame(sport=port) for port in range(3000, 3050)]
        workers = [self.both(packet).worker for packet in packets]
        shares = self.plane.counters().per_worker
        self.assertEqual(shares[1][0], workers.count(1))
        self.assertEqual(shares[1][1], workers.count(1) * len(packets[0]))


class BuildTests(SynchronousTestCase):
    """Compiling."""

    def test_builds(self) -> None:
        """The sources compile without a warning."""
        folder = Path(self.mktemp())
        folder.mkdir()
        try:
            self.assertTrue(build(folder).exists())
        except SystemRefused as error:
            if "clang" in error.detail and not os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise SkipTest(str(error)) from None
            raise
