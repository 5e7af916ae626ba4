"""A call at a moment: with an epoll reactor to some microseconds, for its own timers are rounded up to milliseconds.

At an advertisement interval of ten milliseconds a millisecond is a tenth of it, at each owner and at each backup.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Alarm", "alarm"]

# linux/time.h and linux/timerfd.h: time goes on while the machine sleeps, as the clock of the virtual routers does.
_CLOCK_BOOTTIME = 7
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
#: A timer of zero is none.
_SHORTEST_NS = 1


class Alarm(Protocol):
    """Rings once for each time that it was set, unless it was set anew or cancelled before."""

    def set(self, delay_s: float) -> None:
        """Ring after ``delay_s`` seconds, and not when it was to ring before."""

    def cancel(self) -> None:
        """Do not ring."""

    def close(self) -> None:
        """Never ring again. Idempotent."""


def alarm(reactor: Any, ring: Callable[[], None]) -> Alarm:
    """One that calls ``ring``: the kernel's where the reactor can wait for it, else the reactor's own."""
    if IReactorFDSet.providedBy(reactor):
        try:
            return _KernelAlarm(reactor, ring)
        except OSError:
            pass  # no descriptor left, or a sandbox: a millisecond later is better than never
    return _ReactorAlarm(reactor, ring)


class _ReactorAlarm:
    """By the reactor's timers."""

    def __init__(self, reactor: Any, ring: Callable[[], None]) -> None:
        self._reactor = reactor
        self._ring = ring
        self._call: IDelayedCall | None = None

    def set(self, delay_s: float) -> None:
        self.cancel()
        self._call = self._reactor.callLater(delay_s, self._rings)

    def _rings(self) -> None:
        self._call = None
        self._ring()

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def close(self) -> None:
        self.cancel()


class _Time(ctypes.Structure):
    """``struct itimerspec``: the interval of repetition, and the first time."""

    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


@implementer(IReadDescriptor)
class _KernelAlarm:
    """By a descriptor that becomes readable (timerfd_create(2))."""

    def __init__(self, reactor: IReactorFDSet, ring: Callable[[], None]) -> None:
        """:raises OSError: there is no such descriptor to be had."""
        c = ctypes.CDLL(None, use_errno=True)
        self._settime = c.timerfd_settime
        self._fd: int = c.timerfd_create(_CLOCK_BOOTTIME, _FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._reactor = reactor
        self._ring = ring
        self._time = _Time(0, 0, 0, 0)
        self._where = ctypes.byref(self._time)
        reactor.addReader(self)

    def set(self, delay_s: float) -> None:
        self._arm(max(_SHORTEST_NS, round(delay_s * 1e9)))

    def cancel(self) -> None:
        self._arm(0)

    def _arm(self, delay_ns: int) -> None:
        if self._fd < 0:
            return
        self._time.value_s, self._time.value_ns = divmod(delay_ns, 1_000_000_000)
        # Setting it also takes back what it has not said yet.
        self._settime(self._fd, 0, self._where, None)

    def close(self) -> None:
        if self._fd >= 0:
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        try:
            os.read(self._fd, 8)
        except OSError as error:
            if error.errno in {errno.EAGAIN, errno.EINTR}:  # cancelled or set anew in this very turn
                return
            raise
        self._ring()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going away."""

    def logPrefix(self) -> str:
        return "alarm"
