"""Whether listeners accept is found out by connecting."""

from __future__ import annotations

import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.acceptance import AcceptanceCheck, listens


class ListensTests(SynchronousTestCase):
    """One address and port of this machine."""

    def test_a_listening_socket_accepts(self) -> None:
        """The kernel completes the connection although nobody called accept yet."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.assertTrue(listens("127.0.0.1", server.getsockname()[1]))

    def test_a_bound_socket_does_not(self) -> None:
        """A port that is taken but does not listen is no service."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.assertFalse(listens("127.0.0.1", bound.getsockname()[1]))

    def test_a_full_backlog_does_not(self) -> None:
        """A process that has stopped accepting is found out once its backlog is full."""
        with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
            seen = [listens("127.0.0.1", server.getsockname()[1]) for _ in range(6)]
        self.assertEqual((seen[0], seen[-1]), (True, False))


class AcceptanceCheckTests(SynchronousTestCase):
    """All listeners together, again and again."""

    def setUp(self) -> None:
        self.open = {80, 443}
        self.heard: list[bool] = []
        self.clock = Clock()
        self.check = AcceptanceCheck(
            clock=self.clock,
            targets=[("192.0.2.1", 80), ("192.0.2.1", 443)],
            interval_s=0.5,
            changed=self.heard.append,
            connects=lambda host, port: port in self.open,
        )

    def test_checks_at_once(self) -> None:
        """The first answer is there when the service has started."""
        self.check.startService()
        self.assertTrue(self.check.accepting)

    def test_one_deaf_listener_is_enough(self) -> None:
        """A node that serves only some of its services is not accepting."""
        self.check.startService()
        self.open.remove(443)
        self.clock.advance(0.5)
        self.assertFalse(self.check.accepting)

    def test_only_changes_are_told(self) -> None:
        """The array hears of a change once."""
        self.check.startService()
        self.clock.pump([0.5] * 3)
        self.open.clear()
        self.clock.pump([0.5] * 3)
        self.assertEqual(self.heard, [True, False])

    def test_stops(self) -> None:
        """A stopped check leaves nothing behind in the reactor."""
        self.check.startService()
        self.check.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
