"""Connections to back ends that are used again: never at a client's cost."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.limits import Limits
from lbarray.worker.backend import BackendConnection, IdleLifetimes
from tests.worker.engine import OK, Backend, Engine

reactor: Any = global_reactor
KEEPALIVE_S = 0.05


class IdleLifetimeTests(SynchronousTestCase):
    """What is learnt from connections that back ends closed."""

    PLACE = ("192.0.2.1", 80)

    def test_nothing_known(self) -> None:
        """Before the first closed one every connection is taken to be safe."""
        self.assertEqual(IdleLifetimes().safe_s(self.PLACE), float("inf"))

    def test_learnt(self) -> None:
        """The shortest counts at once; longer ones bring it back slowly, as after a restart of the back end."""
        lifetimes = IdleLifetimes()
        lifetimes.closed_after(self.PLACE, 5.0)
        self.assertEqual(lifetimes.safe_s(self.PLACE), 2.5)
        lifetimes.closed_after(self.PLACE, 0.01)
        self.assertEqual(lifetimes.safe_s(self.PLACE), 0.005)
        for _ in range(150):
            lifetimes.closed_after(self.PLACE, 5.0)
        self.assertAlmostEqual(lifetimes.safe_s(self.PLACE), 2.5, places=2)


class TrustedTests(SynchronousTestCase):
    """May an idle connection carry what cannot be repeated?"""

    class Transport:
        def __init__(self, handle: socket.socket) -> None:
            self.getHandle = lambda: handle

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        self.lifetimes = IdleLifetimes()
        self.connection = BackendConnection(Limits(), ("a", 1), self.lifetimes)
        self.connection.transport = self.Transport(ours)
        self.connection.stored(None, 10.0)

    def test_open(self) -> None:
        """Yes, while nothing has come."""
        self.assertTrue(self.connection.trusted(11.0))

    def test_closed(self) -> None:
        """No, when its end is there and nobody has read it."""
        self.theirs.close()
        self.assertFalse(self.connection.trusted(11.0))

    def test_unasked(self) -> None:
        """No, when there are octets that nobody asked for."""
        self.theirs.send(b"x")
        self.assertFalse(self.connection.trusted(11.0))

    def test_old(self) -> None:
        """No, when its like have been closed at not much more than its age."""
        self.lifetimes.closed_after(("a", 1), 1.5)
        self.assertTrue(self.connection.trusted(10.7))
        self.assertFalse(self.connection.trusted(10.8))


class KeepaliveTests(Engine):
    """A back end that closes idle connections after 50 milliseconds."""

    async def test_ten_thousand(self) -> None:
        """10,000 requests, a third of them POST, with pauses about as long as the time-out: no error.

        Sockets are real; the time is not, a millisecond goes by in each turn of the reactor: so however busy the
        machine is, a back end never closes a connection before it has read what was sent over it long ago.
        """
        clock = Clock()
        idle: dict[Backend, Any] = {}

        def script(backend: Backend, data: bytes) -> None:
            if backend in idle and idle[backend].active():
                idle[backend].cancel()
            idle[backend] = clock.callLater(KEEPALIVE_S, backend.transport.loseConnection)
            backend.transport.write(OK)

        self.serve(script)
        self.factory.seconds = clock.seconds
        chance = random.Random(1)
        statuses: dict[bytes, int] = {}

        async def one_client(count: int) -> None:
            client = await self.connect()
            for number in range(count):
                if number % 25 == 24:
                    await deferLater(clock, KEEPALIVE_S * chance.uniform(0.9, 1.1))
                client.got = b""
                if chance.random() < 0.33:
                    request = self.get(b"/", b"Content-Length: 2", method=b"POST") + b"ab"
                else:
                    request = self.get()
                client.transport.write(request)
                await client.until(lambda: client.closed or client.got.endswith((b"hi", b"\n")))
                status = client.got[9:12]
                statuses[status] = statuses.get(status, 0) + 1

        async def pass_time(until: Callable[[], bool]) -> None:
            while not until():
                clock.advance(0.001)
                await deferLater(reactor, 0)

        # How long it keeps a connection is learnt from the first one that it closes: let that be one of nobody's.
        await one_client(1)
        await pass_time(lambda: self.servers[0].lost > 0)
        done = gatherResults([Deferred.fromCoroutine(one_client(500)) for _ in range(20)])
        await pass_time(lambda: done.called)
        await done
        self.assertEqual(statuses, {b"200": 10_001})
        self.assertGreater(self.servers[0].lost, 100)

    test_ten_thousand.timeout = 90  # type: ignore[attr-defined]
