"""Connections that wait for the next request."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.connections import IdleConnections


class Connection:
    """Something that can be closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class IdleConnectionTests(SynchronousTestCase):
    """Connections that wait."""

    def setUp(self) -> None:
        self.idle = IdleConnections(max_idle=2, idle_timeout_s=10)
        self.made = [Connection() for _ in range(3)]

    def test_last_in_first_out(self) -> None:
        """The freshest is used first."""
        for now, connection in enumerate(self.made[:2]):
            self.idle.store(connection, float(now))
        self.assertIs(self.idle.take(), self.made[1])
        self.assertIs(self.idle.take(), self.made[0])
        self.assertIsNone(self.idle.take())

    def test_oldest_makes_room(self) -> None:
        """No more than the limit wait."""
        for now, connection in enumerate(self.made):
            self.idle.store(connection, float(now))
        self.assertEqual([connection.closed for connection in self.made], [True, False, False])

    def test_expire(self) -> None:
        """Those that waited too long are closed."""
        self.idle.store(self.made[0], 0.0)
        self.idle.store(self.made[1], 5.0)
        self.assertEqual(self.idle.expire(10.0), 1)
        self.assertEqual([connection.closed for connection in self.made], [True, False, False])

    def test_forget(self) -> None:
        """One that died is not handed out; an unknown one is no matter."""
        self.idle.store(self.made[0], 0.0)
        self.idle.forget(self.made[0])
        self.idle.forget(self.made[1])
        self.assertIsNone(self.idle.take())

    def test_none_wanted(self) -> None:
        """A limit of none closes at once."""
        IdleConnections(max_idle=0, idle_timeout_s=1).store(self.made[0], 0.0)
        self.assertTrue(self.made[0].closed)
