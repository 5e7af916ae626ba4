"""Connections of all processes of a node, counted together."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.limits import Limits
from lbarray.worker.clients import Clients
from lbarray.worker.processes.counts import ConnectionCounts


class CountTests(SynchronousTestCase):
    """The memory that they share."""

    def setUp(self) -> None:
        self.fd = ConnectionCounts.memory(4)
        self.addCleanup(os.close, self.fd)
        self.node = self.counts()
        self.assertEqual([self.node.take() for _ in range(3)], [0, 1, 2])

    def counts(self, place: int = -1) -> ConnectionCounts:
        found = ConnectionCounts(self.fd, place)
        self.addCleanup(found.close)
        return found

    def test_limit(self) -> None:
        """The node's limit holds for all processes together, and whoever leaves makes room at any of them."""
        limits = Limits(max_connections=3)
        one, two = Clients(limits, self.counts(0)), Clients(limits, self.counts(2))
        self.assertEqual(
            [each.connected("192.0.2.1")[1] for each in (one, two, two, one, two)], [""] * 3 + ["node"] * 2
        )
        one.left(None)
        self.assertEqual(two.connected("192.0.2.1")[1], "")
        self.assertEqual((one.connections, two.connections, self.counts().total), (0, 3, 3))
        self.assertTrue(one.crowded)

    def test_refused_for_its_client(self) -> None:
        """A connection that is refused because of its client is not counted for the node."""
        clients = Clients(Limits(max_connections=2, client_connections=1), self.counts(1))
        self.assertEqual(
            [clients.connected(each)[1] for each in ("192.0.2.1", "192.0.2.1", "192.0.2.2")], ["", "client", ""]
        )
        self.assertEqual(self.counts().total, 2)

    def test_a_process_that_died(self) -> None:
        """What it had no longer counts."""
        self.counts(0).set(5)
        self.counts(1).set(2)
        self.node.give_back(0)
        self.assertEqual(self.counts().total, 2)

    def test_more_processes(self) -> None:
        """One that comes later is seen by those that are there; its place may be one that is free again."""
        before = self.counts(0)
        self.assertEqual(self.node.take(), 3)
        self.counts(3).set(7)
        self.assertEqual(before.total, 7)
        self.assertEqual(self.node.take(), -1)
        self.node.give_back(-1)
        self.node.give_back(1)
        self.assertEqual((self.node.take(), self.node.take()), (1, -1))
