"""Which of two workers gets a new connection."""

from __future__ import annotations

from ipaddress import IPv4Address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.scheduler.abi import COST_OF_ONE, Choice
from lbarray.scheduler.choice import Burdens, choices, costs
from lbarray.scheduler.maglev import Weighted
from lbarray.values import Load, NodeReport, PlaneService, ServiceId, WorkerCost

ADDRESS = IPv4Address("192.0.2.1")
INDEX = {"a": 0, "b": 1, "c": 2}


def says(name: str, connections: int, queued: int = 0) -> NodeReport:
    return NodeReport(name, ADDRESS, load=Load(connections=connections, accept_queue=queued, cpu=0.9))


class CostsTests(SynchronousTestCase):
    """What workers bear, by what they say."""

    def test_by_weight(self) -> None:
        """A connection weighs more on a worker that has fewer rows; those that wait to be accepted count as well."""
        workers = [Weighted("a", 50), Weighted("b", 150)]
        found = costs(workers, [says("a", 10, 2), says("b", 36)], INDEX)
        self.assertEqual(found, {0: WorkerCost(12 * 2048, 2048), 1: WorkerCost(36 * 683, 683)})

    def test_silent(self) -> None:
        """Of a worker that is not heard nothing is known; one without rows does not matter."""
        found = costs([Weighted("a"), Weighted("b")], [says("a", 1), says("c", 1)], INDEX)
        self.assertEqual(set(found), {0})

    def test_extreme_weights(self) -> None:
        """What is told fits into the program's numbers, and is never nothing."""
        found = costs([Weighted("a", 1), Weighted("b", 65535 * 1000)], [says("a", 0), says("b", 0)], INDEX)
        self.assertEqual([cost.each for cost in found.values()], [0xFFFFFFFF, 512])
        many = [Weighted("a", 10**7), *(Weighted(str(number), 1) for number in range(20000))]
        self.assertEqual(costs(many, [says("a", 0)], INDEX)[0].each, 1)


class BurdensTests(SynchronousTestCase):
    """Who is lighter."""

    def test_margin(self) -> None:
        """Four connections and a sixteenth are no difference."""
        burdens = Burdens()
        for less, more, lighter in ((0, 4, False), (0, 5, True), (160, 174, False), (160, 175, True)):
            burdens.set(
                {0: WorkerCost(less * COST_OF_ONE, COST_OF_ONE), 1: WorkerCost(more * COST_OF_ONE, COST_OF_ONE)}
            )
            self.assertEqual(burdens.is_lighter(0, 1), lighter, (less, more))
            self.assertFalse(burdens.is_lighter(1, 0))

    def test_given(self) -> None:
        """What was given since the last report counts, by what one costs there, until the next."""
        burdens = Burdens()
        said = {0: WorkerCost(0, 2 * COST_OF_ONE), 1: WorkerCost(9 * COST_OF_ONE, COST_OF_ONE)}
        burdens.set(said)
        for _ in range(3):
            self.assertTrue(burdens.is_lighter(0, 1))
            burdens.give(0)
        self.assertFalse(burdens.is_lighter(0, 1))
        burdens.set(said)
        self.assertTrue(burdens.is_lighter(0, 1))


class ChoicesTests(SynchronousTestCase):
    """How services choose."""

    def test_switched_off(self) -> None:
        """A service that does not choose any more still has connections in second rows, as long as it is there."""
        one, other = (ServiceId(ADDRESS, port) for port in (80, 81))
        before = choices([PlaneService(one, least_loaded=True), PlaneService(other)], {})
        self.assertEqual(before, {one: Choice.LESS_LOADED, other: Choice.ONE_ROW})
        after = choices([PlaneService(one), PlaneService(other)], before)
        self.assertEqual(after, {one: Choice.TWO_ROWS, other: Choice.ONE_ROW})
        self.assertEqual(choices([PlaneService(one)], after), {one: Choice.TWO_ROWS})
        self.assertEqual(choices([PlaneService(one)], choices([], after)), {one: Choice.ONE_ROW})
