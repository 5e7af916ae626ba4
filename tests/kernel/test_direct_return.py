"""The worker's side of direct return."""

from __future__ import annotations

from ipaddress import IPv4Address

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.kernel.direct_return import Fault, faults
from lbarray.telemetry.counters import Counters
from lbarray.worker.direct_return import LOOK_S, DirectReturnService

VIP = IPv4Address("192.0.2.100")


class FaultTests(SynchronousTestCase):
    """Kernel parameters, as a test has them; ``lo`` as it really is."""

    def setUp(self) -> None:
        self.values = {
            "all.arp_ignore": "1",
            "all.arp_announce": "2",
            "all.rp_filter": "0",
            "eth0/5.arp_ignore": "0",
            "eth0/5.arp_announce": "0",
            "eth0/5.rp_filter": "0",
        }

    def read(self, name: str) -> str:
        try:
            return self.values[name.removeprefix("net.ipv4.conf.")]
        except KeyError:
            raise SystemRefused(f"read sysctl {name}") from None

    def write(self, name: str, value: str) -> None:
        self.values[name.removeprefix("net.ipv4.conf.")] = value

    def parameters(self) -> list[Fault]:
        found = faults([VIP], "eth0.5", read=self.read, write=self.write)
        return [fault for fault in found if "_" in str(fault).partition(" is ")[0]]

    def repaired(self) -> None:
        for fault in self.parameters():
            assert fault.repair is not None
            fault.repair()
        self.assertEqual(self.parameters(), [])

    def test_right(self) -> None:
        """The larger of the two parameters counts."""
        self.assertEqual(self.parameters(), [])

    def test_answers_for_the_vip(self) -> None:
        """Each parameter that is wrong is named with its consequence, and put right."""
        self.values.update({"all.arp_ignore": "0", "all.arp_announce": "0"})
        found = [str(fault) for fault in self.parameters()]
        self.assertEqual(len(found), 2)
        self.assertIn("net.ipv4.conf.all.arp_ignore is 0, has to be 1", found[0])
        self.repaired()

    def test_strict_for_all(self) -> None:
        """Strict checking for all interfaces is loosened for ours alone: the others stay protected."""
        self.values["all.rp_filter"] = "1"
        self.assertEqual(len(self.parameters()), 1)
        self.repaired()
        self.assertEqual((self.values["all.rp_filter"], self.values["eth0/5.rp_filter"]), ("1", "2"))

    def test_too_much(self) -> None:
        """A machine that ignores all ARP requests could not own the VIP either."""
        self.values["eth0/5.arp_ignore"] = "8"
        self.repaired()

    def test_no_such_interface(self) -> None:
        """What cannot be looked at is a fault, no exception."""
        found = faults([VIP], "nothing0", read=self.read)
        self.assertTrue(any("nothing0" in str(fault) for fault in found), found)


class DirectReturnServiceTests(SynchronousTestCase):
    """Looking, repairing, naming."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.found: list[Fault] = []
        self.told: list[str] = []
        self.service = DirectReturnService(
            clock=self.clock,
            look=lambda: self.found,
            changed=lambda: self.told.append(self.service.trouble),
            counters=Counters(),
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def test_repair(self) -> None:
        """What can be repaired is, within one look, and is remembered for operators."""
        self.found = [Fault("the VIP is missing", self.found.clear)]
        self.clock.advance(LOOK_S)
        self.assertEqual((self.service.trouble, self.told), ("", []))
        self.assertIn("the VIP is missing", str(self.service.status()))

    def test_named(self) -> None:
        """What cannot be is told to everybody in one line, and when it is over that is told too."""

        def refuse() -> None:
            raise SystemRefused("set sysctl x=1", detail="read-only file system")

        self.found = [Fault("no carrier"), Fault("x is 0, has to be 1", refuse)]
        self.clock.pump([LOOK_S] * 3)
        self.assertEqual(len(self.told), 1)
        self.assertIn("no carrier; x is 0, has to be 1; cannot set sysctl x=1: read-only", self.service.trouble)
        self.found = []
        self.clock.advance(LOOK_S)
        self.assertEqual(self.told[1:], [""])
