"""A new connection goes to the less loaded of two workers, and its packets follow: program and model decide alike."""

from __future__ import annotations

from ipaddress import IPv4Address

import attrs

from lbarray.scheduler.abi import MARK_ONCE, MARK_TWICE, NOBODY, ROW, Verdict, mapped
from lbarray.scheduler.decision import Decision
from lbarray.scheduler.flow import hash_client
from lbarray.values import HashBy
from tests.bpf.bench import PEER_B, SECRET, SPREAD, SPREAD6, TABLE_SIZE, ProgramTestCase
from tests.bpf.frames import CLIENT, SYN, ethernet, ipv4, ipv6, tcp, too_big, web, web6

PORTS = range(2000, 2200)


class ChoiceTests(ProgramTestCase):
    """As a tc classifier. Node a owns the VIPs; a, b and c have rows."""

    def setUp(self) -> None:
        super().setUp()
        self.members("a", "b", "c")

    def owners(self, port: int) -> tuple[int, int]:
        """Whose the two rows of a client's port are."""
        value = hash_client(SECRET, mapped(IPv4Address(CLIENT)), port.to_bytes(2, "big"), HashBy.CONNECTION, b"")
        rows = [half * TABLE_SIZE >> 32 for half in (value >> 32, value & 0xFFFFFFFF)]
        return self.table.row(rows[0])[0], self.table.row(rows[1])[0]

    def syn(self, port: int, sequence: int = 1) -> Decision:
        return self.run_both(ethernet(ipv4(tcp(port, 8080, flags=SYN, sequence=sequence))))

    def begin(self) -> dict[int, int]:
        """New connections, and who got them."""
        found = {port: self.syn(port).worker for port in PORTS}
        return {port: worker for port, worker in found.items() if worker is not None}

    def test_busy_worker(self) -> None:
        """A busy worker gets a new connection only where both rows are its own; who gets it instead is counted."""
        self.bear(a=0, b=10_000, c=0)
        began = {port: self.syn(port) for port in PORTS}
        for port, decision in began.items():
            first, second = self.owners(port)
            self.assertIn(decision.worker, (first, second))
            self.assertEqual(decision.worker == 1, first == second == 1)
            self.assertEqual(decision.chosen, decision.worker != first)
        for index, share in self.plane.counters().shares[SPREAD].items():
            self.assertEqual(share.chosen, sum(each.chosen and each.worker == index for each in began.values()))

    def test_ipv6(self) -> None:
        """So it is over IPv6."""
        self.bear(a=0, b=10_000, c=0)
        got = [self.run_both(web6(sport=port, dport=8080, flags=SYN)).worker for port in PORTS]
        rows = [self.run_both(web6(sport=port, flags=SYN)).worker for port in PORTS]
        self.assertGreater(rows.count(1), 2 * got.count(1))
        self.assertIn(SPREAD6, self.plane.counters().shares)

    def test_small_difference(self) -> None:
        """Where the other one bears hardly less, the row decides."""
        self.bear(a=1000, b=1040, c=1000)
        self.assertEqual({self.syn(port).chosen for port in PORTS[:20]}, {False})

    def test_no_herd(self) -> None:
        """What was given since the last report counts: an idle worker is not flooded until the next."""
        self.bear(a=40, b=40, c=0)
        got = list(self.begin().values())
        # Level after forty, and from then on each gets its part.
        self.assertLess(got.count(2), 40 + (len(PORTS) - 40) / 3 + 20)
        self.assertGreater(min(got.count(0), got.count(1)), 30)

    def test_unknown(self) -> None:
        """A worker of which nothing is known is not chosen over another, nor another over it."""
        self.bear(a=0, c=10_000)
        for port, worker in self.begin().items():
            first, second = self.owners(port)
            self.assertEqual(worker, 0 if (first, second) == (2, 0) else first)
        self.bear()
        self.assertEqual({self.syn(port, 2).chosen for port in PORTS}, {False})

    def test_not_reachable(self) -> None:
        """Nor is one that has rows but is not known."""
        self.members("a", "b", "c", "d")
        self.bear(a=10_000, b=10_000, c=10_000, d=0)
        self.assertEqual({self.syn(port).chosen for port in PORTS}, {False})

    def test_follows(self) -> None:
        """A connection's packets go where it began, and so do errors about them."""
        self.bear(a=0, b=10_000, c=0)
        began = self.begin()
        self.bear(a=10_000, b=0, c=10_000)
        for port, worker in began.items():
            found = self.run_both(web(sport=port, dport=8080))
            self.assertEqual((found.worker, found.cached), (worker, True))
            self.assertEqual(self.run_both(too_big(sport=port, dport=8080)).worker, worker)

    def test_fragments(self) -> None:
        """A SYN in fragments is given away as a whole."""
        self.bear(a=0, b=10_000, c=0)
        for port in PORTS[:30]:
            first = self.run_both(ethernet(ipv4(tcp(port, 8080, flags=SYN), fragment=0x2000, identification=port)))
            later = self.run_both(ethernet(ipv4(bytes(80), fragment=0x0005, identification=port)))
            self.assertEqual((later.verdict, later.worker), (first.verdict, first.worker))

    def test_comes_again(self) -> None:
        """A SYN that comes again goes to the same worker, whoever is the less loaded by now; one that begins the
        connection anew does not."""
        self.bear(a=0, b=10_000, c=0)
        began = self.begin()
        self.bear(a=10_000, b=0, c=10_000)
        self.assertEqual(self.begin(), began)
        anew = {port: self.syn(port, 7).worker for port in PORTS}
        self.assertEqual({anew[port] for port in PORTS if 1 in self.owners(port)}, {1})

    def test_comes_again_after_a_change(self) -> None:
        """Where neither row is the worker's any more, a SYN that comes again has another one."""
        self.bear(a=0, b=0, c=0)
        self.begin()
        self.members("a", "c")
        self.assertEqual({self.syn(port).worker for port in PORTS}, {0, 2})

    def test_memory_lost(self) -> None:
        """What a scheduler does not remember goes to the row's worker, and from there to that of the second row."""
        self.without_history()
        for port in PORTS:
            first, second = self.owners(port)
            found = self.run_both(web(sport=port, dport=8080))
            if first:
                self.assertEqual((found.verdict, found.worker), (Verdict.FORWARDED, first))
            elif second:
                self.assertEqual((found.verdict, found.worker), (Verdict.PASSED_ON, second))
                self.assertEqual(found.frame[12:14], MARK_ONCE.to_bytes(2, "big"))
            else:
                self.assertEqual(found.verdict, Verdict.PASSED_LOCAL)

    def without_history(self) -> None:
        """The rows of a, b and c, without a history."""
        rows = b"".join(ROW.pack(self.table.row(row)[0], NOBODY, NOBODY, NOBODY) for row in range(TABLE_SIZE))
        self.plane.apply(rows)
        self.model.apply(rows)

    def test_sent_by_a_scheduler_without_memory(self) -> None:
        """The row's worker passes on what another node sent it and its kernel does not hold; and the worker of the
        second row what came here for it."""
        self.without_history()
        for port in PORTS:
            first, second = self.owners(port)
            found = self.run_both(ethernet(ipv4(tcp(port, 8080)), source=PEER_B))
            if 0 in (first, second) and first != second:
                self.assertEqual((found.verdict, found.worker), (Verdict.PASSED_ON, first or second))
            elif first == second == 0:
                self.assertIs(found.verdict, Verdict.PASSED_DELIVERED)

    def test_switched_off(self) -> None:
        """Without the choice new connections go by their rows; those that had another way keep it."""
        self.bear(a=0, b=10_000, c=0)
        began = self.begin()
        self.set(services=[attrs.evolve(each, least_loaded=False) for each in self.services])
        for port, worker in began.items():
            self.assertEqual(self.run_both(web(sport=port, dport=8080)).worker, worker)
        self.assertEqual({self.syn(port, 5).chosen for port in PORTS}, {False})
        passed_on = {
            self.run_both(ethernet(ipv4(tcp(port, 8080)), source=PEER_B)).verdict for port in range(4000, 4100)
        }
        self.assertIn(Verdict.PASSED_ON, passed_on)

    def test_passed_on_seven_times(self) -> None:
        """There are twice as many who may hold it, so it may be passed on more often; then it is delivered."""
        for each in (self.plane, self.model):
            each.apply(ROW.pack(1, 2, NOBODY, NOBODY) * TABLE_SIZE)
        for make, life in ((ipv4, 8), (ipv6, 7)):
            packet = make(tcp(dport=8080))
            lives = []
            for _ in range(20):
                found = self.run_both(ethernet(packet, source=PEER_B, ethertype=MARK_TWICE))
                if found.verdict is not Verdict.PASSED_ON:
                    break
                self.assertEqual(found.worker, 2)
                packet = found.frame[14:]
                lives.append(packet[life])
            self.assertEqual((found.verdict, lives), (Verdict.PASSED_DELIVERED, [5, 4, 3, 2, 1]))


class ChoiceXdpTests(ChoiceTests):
    """As XDP."""

    mode = "xdp-generic"


class ChoicePacketTests(ChoiceTests):
    """By the plane in Python."""

    mode = "packet"
