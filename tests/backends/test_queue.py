"""The queue alone: bounds, order, places given up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.queue import RequestQueue
from tests.backends.parts import member
from tests.backends.test_pool import Waiting


class QueueTests(SynchronousTestCase):
    """By priority, in order, bounded."""

    def test_full(self) -> None:
        """A full queue refuses the next of the same importance."""
        queue = RequestQueue(2)
        first, second, third = Waiting("a"), Waiting("b"), Waiting("c")
        self.assertEqual([queue.push(each) for each in (first, second, third)], [None, None, third])
        self.assertEqual(len(queue), 2)

    def test_displaced(self) -> None:
        """A more important one takes the place of the latest of the least important."""
        queue = RequestQueue(3)
        low = [Waiting("a"), Waiting("b"), Waiting("c", priority=1)]
        for each in low:
            queue.push(each)
        self.assertIs(queue.push(Waiting("d", priority=2)), low[1])
        self.assertEqual((len(queue), low[1].gone), (3, True))

    def test_between_lanes(self) -> None:
        """Those bound to a member and those bound to nobody wait in one order."""
        queue = RequestQueue(9)
        mine = member("w1")
        for each in (
            Waiting("a"),
            Waiting("b", bound=mine),
            Waiting("c", priority=1),
            Waiting("d", bound=mine, priority=1),
        ):
            queue.push(each)
        order = []
        while (waiter := queue.first(None, mine)) is not None:
            order.append(waiter.name)  # type: ignore[attr-defined]  # it is one of ours
            queue.remove(waiter)
        self.assertEqual(order, ["c", "d", "a", "b"])

    def test_given_up(self) -> None:
        """Who has gone is passed over; going twice is no matter."""
        queue = RequestQueue(3)
        first, second = Waiting("a"), Waiting("b")
        queue.push(first)
        queue.push(second)
        queue.remove(first)
        queue.remove(first)
        self.assertIs(queue.first(None), second)
        queue.remove(second)
        self.assertIsNone(queue.first(None))
        self.assertEqual(len(queue), 0)
