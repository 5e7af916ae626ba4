"""Membership in, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.kernel.nexthop import NextHop
from lbarray.scheduler.maglev import NOBODY, Weighted
from lbarray.scheduler.reach import Reach, in_one_segment
from lbarray.scheduler.service import CHECK_S, GATHER_S, LOST_FOR_GOOD_S, SchedulerService
from lbarray.scheduler.table import RowTable
from lbarray.telemetry.counters import Counters
from lbarray.testing import MemoryMembers, MemoryPlane, PlaneSuite
from lbarray.values import Address, Load, NodeReport, PlaneService, WorkerCost, WorkerTarget

INDEX = {"a": 0, "b": 1, "c": 2}


def report(name: str, *, accepting: bool = True, draining: bool = False) -> NodeReport:
    number = INDEX[name] + 1
    return NodeReport(
        name=name,
        address=IPv4Address(f"192.0.2.{number}"),
        mac=bytes([2, 0, 0, 0, 0, number]),
        accepting=accepting,
        draining=draining,
    )


class MemoryPlaneTests(PlaneSuite, SynchronousTestCase):
    """The double keeps the contract that it stands for."""

    def make_plane(self) -> MemoryPlane:
        return MemoryPlane()


class SchedulerServiceTests(SynchronousTestCase):
    """What the plane is told, and when."""

    def make(self, *, one_owner: bool = False) -> SchedulerService:
        return SchedulerService(
            clock=self.clock,
            node_name="a",
            plane=self.plane,
            members=self.members,
            index=INDEX,
            services=[PlaneSuite.SERVICE],
            table=RowTable(INDEX, 101),
            reach=in_one_segment("a"),
            counters=Counters(),
            able=self.faults.append,
            one_owner=one_owner,
        )

    def setUp(self) -> None:
        self.clock = Clock()
        self.faults: list[str] = []
        self.plane = MemoryPlane()
        self.members = MemoryMembers(report("a"), report("b"))
        self.service = self.make()
        self.service.startService()

    def test_says_that_the_plane_does_not_forward(self) -> None:
        """Each second it is told why not, and when it does again."""
        self.clock.advance(CHECK_S)
        self.plane.fault = "somebody took it away"
        self.clock.advance(CHECK_S)
        self.plane.fault = ""
        self.clock.advance(CHECK_S)
        self.assertEqual(self.faults, ["", "somebody took it away", ""])

    def test_tells_costs(self) -> None:
        """Each second it is told what those that have rows bear, where a service chooses by that."""
        self.clock.advance(CHECK_S)
        self.assertEqual(self.plane.costs, {})
        self.service.reconfigure([PlaneService(PlaneSuite.SERVICE.id, least_loaded=True)])
        busy = attrs.evolve(report("b"), load=Load(connections=7))
        self.members.become(report("a"), busy, report("c", accepting=False))
        self.clock.advance(CHECK_S)
        self.assertEqual(self.plane.costs, {0: WorkerCost(0, 1024), 1: WorkerCost(7 * 1024, 1024)})

    def owners(self) -> set[int]:
        return {now for now, *_ in self.plane.rows}

    def test_ready_before_it_is_owner(self) -> None:
        """A backup has its rows already: taking over is one flag."""
        self.assertEqual(self.owners(), {0, 1})
        self.assertEqual(self.plane.active, frozenset())
        vip = PlaneSuite.SERVICE.id.address
        self.service.set_owned(frozenset({vip}))
        self.assertEqual(self.plane.active, {vip})
        self.assertTrue(self.service.active)

    def test_itself_is_local(self) -> None:
        """Our own packets are passed up, not sent out."""
        self.assertTrue(self.plane.workers[0].local)
        self.assertFalse(self.plane.workers[1].local)

    def test_burst_is_one_table(self) -> None:
        """Several changes in a moment are gathered."""
        self.members.become(report("a"))
        self.members.become(report("a"), report("b"), report("c"))
        before = self.service.table.generation
        self.clock.advance(GATHER_S)
        self.assertEqual(self.service.table.generation, before + 1)
        self.assertEqual(self.owners(), {0, 1, 2})

    def test_deaf_and_draining_get_nothing(self) -> None:
        """Who does not accept, or wants no more, gets no rows but stays known."""
        self.members.become(report("a"), report("b", accepting=False), report("c", draining=True))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0})
        self.assertEqual(set(self.plane.workers), {0, 1, 2})

    def test_nobody_accepts(self) -> None:
        """Then everything stays as it was."""
        self.members.become(report("a", accepting=False))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0, 1})

    def history(self) -> set[int]:
        return {owner for _, *before in self.plane.rows for owner in before} - {NOBODY}

    def test_meets_again(self) -> None:
        """Nodes that were apart may have had any row: that is in the history of all, before they have one, in the order
        in which their part had them; and rows that move then are handed to the plane at once."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        self.assertEqual((self.owners(), self.history()), ({0}, {1}))
        self.members.become(report("a"), report("b", accepting=False))
        self.service.meet([report("b")])
        self.assertEqual({row[:2] for row in self.plane.rows}, {(0, 1)})
        self.members.become(report("a"), report("b", accepting=False), report("c", accepting=False))
        self.service.meet([report("c")])
        other = RowTable(INDEX, 101)
        other.update([Weighted("b"), Weighted("c")])
        self.assertEqual([row[1] for row in self.plane.rows], [other.row(row)[0] for row in range(101)])
        self.assertEqual(set(self.plane.workers), {0, 1, 2})

    def test_waits_until_heard(self) -> None:
        """One that was apart gets rows when it has heard this node too, and if it never says so a little later."""
        for ends in (lambda: self.service.met("c"), lambda: self.clock.pump([CHECK_S] * 6)):
            self.members.become(report("a"), report("b"))
            self.clock.advance(GATHER_S)
            self.members.become(report("a"), report("b"), report("c", accepting=False))
            self.service.meet([report("c")])
            self.members.become(report("a"), report("b"), report("c"))
            self.clock.pump([GATHER_S] * 3)
            self.assertEqual(self.owners(), {0, 1})
            ends()
            self.clock.pump([GATHER_S] * 2)
            self.assertEqual(self.owners(), {0, 1, 2})

    def test_two_owners(self) -> None:
        """While a VIP has two, each of which knows only its own part, rows stay where they are; not for ever."""
        vip = PlaneSuite.SERVICE.id.address
        self.service.stopService()
        service = self.service = self.make(one_owner=True)
        self.service.startService()
        self.addCleanup(service.stopService)
        owner = attrs.evolve(report("a"), owned=(vip,))
        self.members.become(owner, attrs.evolve(report("b"), owned=(vip,)), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual((self.owners(), set(self.plane.workers)), ({0, 1}, {0, 1, 2}))
        self.members.become(owner, report("b"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0, 1, 2})
        self.members.become(owner, attrs.evolve(report("b", draining=True), owned=(vip,)), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0, 1, 2})
        self.clock.pump([CHECK_S] * 3)
        self.assertEqual(self.owners(), {0, 2})

    def test_joins(self) -> None:
        """What one of them tells of its rows is in the plane; the dead are not."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        theirs = RowTable(INDEX, 101)
        for name in "bca":
            theirs.update([Weighted(name)])
        self.members.become(report("a"), report("c"))
        self.clock.advance(LOST_FOR_GOOD_S + 1)
        self.service.meet([report("c")])
        self.service.join(theirs.rows)
        self.assertEqual(self.history(), {2})

    def test_newcomer_knows_who_had_its_rows(self) -> None:
        """A node that joins others gives the connections of its rows to those who had them, draining ones too."""
        self.assertEqual({before[0] for now, *before in self.plane.rows if now == 0}, {1})
        plane = MemoryPlane()
        members = MemoryMembers(report("a"), report("b", draining=True), report("c"))
        service = SchedulerService(
            clock=self.clock,
            node_name="a",
            plane=plane,
            members=members,
            index=INDEX,
            services=[PlaneSuite.SERVICE],
            table=RowTable(INDEX, 101),
            reach=in_one_segment("a"),
            counters=Counters(),
        )
        service.startService()
        former = {tuple(before[:2]) for now, *before in plane.rows if now == 0}
        self.assertEqual(former, {(2, 1), (2, NOBODY)})

    def test_silent_for_a_moment(self) -> None:
        """A node that is lost and found still holds its connections: it stays their second chance."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.history(), {1})
        self.members.become(report("a"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertIn(1, self.history())

    def test_lost_for_good(self) -> None:
        """After half a minute it holds none."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        self.clock.advance(LOST_FOR_GOOD_S + 1)
        self.members.become(report("a"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.history(), {0})

    def test_begun_anew(self) -> None:
        """A node that has been started again holds none of its former connections."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        self.members.become(report("a"), attrs.evolve(report("b"), incarnation=2))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.history(), {0})

    def test_beyond_a_router(self) -> None:
        """A worker in another segment is reached by its router in a tunnel; an unknown router is looked for again."""
        hops = {"b": NextHop(False, b"", 1500)}
        self.service._reach = Reach(
            node_name="a",
            tunnels={"b": "gue"},
            look=lambda address: hops["b"] if address == report("b").address else NextHop(True, b"", 1500),
        )
        self.members.become(report("a"), report("b"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual((self.plane.workers[1].tunnel, self.plane.workers[1].mac), ("gue", b""))
        self.assertEqual(self.plane.workers[2].tunnel, "")
        hops["b"] = NextHop(False, b"\2\0\0\0\0\x77", 1500)
        self.clock.pump([0.3, GATHER_S])
        self.assertEqual(self.plane.workers[1].mac, b"\2\0\0\0\0\x77")
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ways_are_remembered(self) -> None:
        """A change of members asks the kernel for no way that is known; each is looked up again within five seconds."""
        asked: list[Address] = []

        def look(address: Address) -> NextHop:
            asked.append(address)
            return NextHop(True, b"", 1500)

        self.service._reach = Reach(node_name="a", tunnels={}, look=look)
        self.members.become(report("a"), report("b"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual(len(asked), 2)
        self.members.become(report("a"), report("b"))
        self.clock.advance(GATHER_S)
        self.members.become(report("a"), report("b"), report("c"))
        self.clock.advance(GATHER_S)
        self.assertEqual(len(asked), 2)
        self.clock.pump([2.5] * 2)
        self.assertEqual(sorted(asked[2:]), sorted(asked[:2]))

    def test_a_death_does_not_wait(self) -> None:
        """Others' news a moment before does not keep the rows of a dead worker from moving at once."""
        self.members.become(report("a"), report("b"), report("c"))
        self.clock.advance(GATHER_S)
        self.members.become(report("a"), report("b"), attrs.evolve(report("c"), weight=50))
        self.members.become(report("a"), attrs.evolve(report("c"), weight=50))
        self.assertEqual(self.owners(), {0, 2})
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0, 2})

    def test_stranger(self) -> None:
        """A member that the configuration does not know gets nothing."""
        self.members.become(report("a"), NodeReport(name="z", address=IPv4Address("192.0.2.9"), accepting=True))
        self.clock.advance(GATHER_S)
        self.assertEqual(self.owners(), {0})

    def reached(self) -> set[int]:
        return {index for index, worker in self.plane.workers.items() if not worker.lost}

    def test_lost_nodes_are_still_believed(self) -> None:
        """What a silent node still passes on is taken; to itself nothing is sent."""
        self.members.become(report("a"))
        self.clock.advance(GATHER_S)
        self.assertTrue(self.plane.workers[1].lost)
        self.members.become(report("a"), report("b"))
        self.clock.advance(GATHER_S)
        self.assertFalse(self.plane.workers[1].lost)

    def test_never_a_row_without_its_worker(self) -> None:
        """While rows change, every worker that one of them names is known: before it, and after it."""
        states: list[tuple[set[int], set[int]]] = []

        def look(plane: MemoryPlane = self.plane) -> None:
            states.append(({row[0] for row in plane.rows}, set(plane.workers)))

        class Watched(MemoryPlane):
            def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
                super().set_workers(workers)
                look(self)

            def apply(self, rows: bytes) -> None:
                super().apply(rows)
                look(self)

        self.plane.__class__ = Watched
        for names in ("abc", "ac", "c", "ab"):
            self.members.become(*(report(name) for name in names))
            self.clock.advance(GATHER_S)
            self.assertEqual(self.reached(), {INDEX[name] for name in names})
        self.assertEqual([(named, known) for named, known in states if not named <= known], [])

    def test_stop_detaches(self) -> None:
        """Nothing is left in the kernel or in the reactor."""
        self.members.become(report("a"))
        self.service.stopService()
        self.assertFalse(self.plane.attached)
        self.assertEqual(self.clock.getDelayedCalls(), [])
