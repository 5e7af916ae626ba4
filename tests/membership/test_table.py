"""Who is in."""

from __future__ import annotations

from ipaddress import IPv4Address

import attrs
from twisted.trial.unittest import SynchronousTestCase

from lbarray.membership.table import Changed, Joined, Left, MembershipTable
from lbarray.values import Load, NodeReport

B = NodeReport(name="b", address=IPv4Address("192.0.2.2"), accepting=True, incarnation=1)
C = NodeReport(name="c", address=IPv4Address("192.0.2.3"), accepting=True, incarnation=1)


class MembershipTableTests(SynchronousTestCase):
    """Heartbeats and time in, joining and leaving out."""

    def setUp(self) -> None:
        self.table = MembershipTable(lost_after_s=2.0)

    def test_joins(self) -> None:
        """The first heartbeat makes a member."""
        self.assertEqual(self.table.heard(B, 0.0), [Joined("b")])
        self.assertEqual(self.table.heard(B, 0.5), [])

    def test_silence(self) -> None:
        """Whoever is silent for too long is out, and it is said for how long."""
        self.table.heard(B, 0.0)
        self.table.heard(C, 1.0)
        self.assertEqual(self.table.deadline, 2.0)
        self.assertEqual(self.table.tick(1.9), [])
        self.assertEqual(self.table.tick(2.0), [Left("b", 2.0)])
        self.assertEqual([report.name for report in self.table.reports()], ["c"])

    def test_farewell(self) -> None:
        """Whoever says so is out at once; once."""
        self.table.heard(B, 0.0)
        self.assertEqual(self.table.left("b"), [Left("b", 0.0)])
        self.assertEqual(self.table.left("b"), [])

    def test_suspected(self) -> None:
        """A node that others found dead is out at once, unless it was heard since; a heartbeat brings it back."""
        self.table.heard(B, 1.0)
        self.assertEqual(self.table.suspect("b", 0.2, 1.1), [])
        self.assertEqual(self.table.suspect("b", 0.2, 1.3), [Left("b", 1.3 - 1.0)])
        self.assertEqual(self.table.suspect("b", 0.2, 1.3), [])
        self.assertEqual(self.table.heard(B, 1.4), [Joined("b")])

    def test_what_matters(self) -> None:
        """Accepting, draining, weight and MAC are told; load is not."""
        self.table.heard(B, 0.0)
        self.assertEqual(self.table.heard(attrs.evolve(B, load=Load(7, 1.0, 0.5)), 0.1), [])
        self.assertEqual(self.table.heard(attrs.evolve(B, accepting=False), 0.2), [Changed("b")])
        self.assertEqual(self.table.heard(attrs.evolve(B, mac=b"\2\0\0\0\0\2"), 0.3), [Changed("b")])

    def test_restart_is_noticed(self) -> None:
        """A new incarnation is in since now."""
        self.table.heard(B, 0.0)
        self.table.heard(attrs.evolve(B, incarnation=2), 1.0)
        self.assertEqual(self.table.since("b"), 1.0)

    def test_nobody(self) -> None:
        """An empty table has no deadline."""
        self.assertIsNone(self.table.deadline)
        self.assertEqual(self.table.tick(9.0), [])
