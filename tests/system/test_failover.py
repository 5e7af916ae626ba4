"""Failover among our own nodes: what takes the VIPs away, and what moves them."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, VIP, Array, wait_for
from tests.system.test_array import need_namespaces


def heir_among(array: Array, *names: str) -> str | None:
    """The one of these hosts that has the VIP, when exactly one has."""
    holders = [name for name in names if array.host(name).has_address(VIP)]
    return holders[0] if len(holders) == 1 else None


class FrozenNodeTests(SynchronousTestCase):
    """SIGSTOP and SIGCONT to the owner."""

    def setUp(self) -> None:
        need_namespaces()

    def test_frozen_owner_gives_up(self) -> None:
        """The kernel takes the VIP from a frozen node; when it wakes up it says so, and one owner remains."""
        with Array(nodes={name: NODES[name] for name in ("a", "b")}) as array:
            array.wait_ready()
            pids = array.host("a").pids()
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: array.owners() == ["b"], "the VIP to leave the frozen node", 10)
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            wait_for(lambda: heir_among(array, "a", "b") == "a", "the first owner to have it back", 10)
            array.wait_ready()
            self.assertIn("stood still", array.log_of("a"))


class HandoverTests(SynchronousTestCase):
    """An orderly stop of the owner."""

    def setUp(self) -> None:
        need_namespaces()

    def test_never_ownerless(self) -> None:
        """Looked at as often as we can: there is no moment at which nobody has the VIP."""
        with Array(nodes={name: NODES[name] for name in ("a", "b")}) as array:
            array.wait_ready()
            for pid in array.host("a").pids():
                os.kill(pid, signal.SIGTERM)
            while not array.host("b").has_address(VIP):
                # It may have moved since that look: a node without it is at fault only if b still lacks it.
                if not array.host("a").has_address(VIP):
                    self.assertTrue(array.host("b").has_address(VIP), "nobody has the VIP")
