"""The alarm: it rings once, when it was set to, by the kernel or by the reactor."""

from __future__ import annotations

import os
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from lbarray.kernel.alarm import Alarm, alarm


def _timers() -> int:
    """Descriptors of this process that are timers of the kernel."""
    return sum("timerfd" in os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if entry.is_symlink())


class AlarmTests(TestCase):
    """Real time: a reactor with descriptors, and a timer of the kernel."""

    def setUp(self) -> None:
        self.rung: list[float] = []
        self.alarm = self._alarm()
        self.addCleanup(self.alarm.close)

    def _alarm(self) -> Alarm:
        return alarm(reactor, lambda: self.rung.append(time.monotonic()))

    def _after(self, seconds: float) -> Deferred[None]:
        return deferLater(reactor, seconds, lambda: None)

    async def test_rings(self) -> None:
        """Once, and not before its time."""
        due = time.monotonic() + 0.01
        self.alarm.set(0.01)
        await self._after(0.05)
        self.assertEqual(len(self.rung), 1)
        self.assertGreaterEqual(self.rung[0], due)

    async def test_at_once(self) -> None:
        """A time that has come is now, in the next turn."""
        self.alarm.set(0.0)
        self.assertEqual(self.rung, [])
        await self._after(0.02)
        self.assertEqual(len(self.rung), 1)

    async def test_anew(self) -> None:
        """Set anew it rings at the new time only; also when the old one has come and was not yet said."""
        self.alarm.set(0.001)
        time.sleep(0.005)
        self.alarm.set(0.03)
        await self._after(0.015)
        self.assertEqual(self.rung, [])
        await self._after(0.05)
        self.assertEqual(len(self.rung), 1)

    async def test_cancelled(self) -> None:
        """Cancelled it does not ring; also when its time had come."""
        self.alarm.set(0.001)
        time.sleep(0.005)
        self.alarm.cancel()
        await self._after(0.02)
        self.assertEqual(self.rung, [])

    async def test_closed(self) -> None:
        """Closed it never rings, and gives its descriptor back; twice is once."""
        before = _timers()
        other = self._alarm()
        self.assertEqual(_timers(), before + 1)
        other.set(0.0)
        other.close()
        other.close()
        other.set(0.0)
        await self._after(0.02)
        self.assertEqual(self.rung, [])
        self.assertEqual(_timers(), before)


class ClockTests(TestCase):
    """A reactor of timers alone."""

    def test_by_the_clock(self) -> None:
        """It rings by the clock that was given; cancelled and closed it is silent."""
        clock, rung = Clock(), []
        made = alarm(clock, lambda: rung.append(clock.seconds()))
        made.set(2.0)
        made.set(3.0)
        clock.advance(2.5)
        self.assertEqual(rung, [])
        clock.advance(0.5)
        self.assertEqual(rung, [3.0])
        made.set(1.0)
        made.close()
        clock.advance(2.0)
        self.assertEqual(rung, [3.0])
