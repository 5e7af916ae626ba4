"""The queue alone: bounds, order, places given up."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.queue import RequestQueue
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
