"""Interrupts between the two processors, which is what a network of namespaces has for those of network cards.

A packet that another processor shall work on costs an interrupt there, unless it is at work on packets already. On a
virtual machine each is an exit to the host: several times as long as the packet takes.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from pathlib import Path

import attrs

from benchmarks.harness import CONTENDER_CPU, LOAD_CPU
from benchmarks.soaker import Soaker

__all__ = ["Interrupts", "cost_us"]

#: The system call's number, and its command for all processes that have asked for it, as the soaker has.
_MEMBARRIER = {"x86_64": 324}.get(os.uname().machine, 283)
_GLOBAL_EXPEDITED = 2


@attrs.frozen
class Interrupts:
    """Those so far that the contender's processor got from the load's, and sent there."""

    received: int
    sent: int

    @classmethod
    def so_far(cls) -> Interrupts:
        """By ``/proc/interrupts``: function calls and rescheduling; the timers' are everybody's."""
        came = [0, 0]
        for line in Path("/proc/interrupts").read_text().splitlines():
            words = line.split()
            if words[0] in ("CAL:", "RES:"):
                for place, cpu in enumerate((CONTENDER_CPU, LOAD_CPU)):
                    came[place] += int(words[1 + cpu])
        return cls(*came)

    def since(self, before: Interrupts) -> int:
        """Received and sent."""
        return self.received - before.received + self.sent - before.sent


def cost_us(soaker: Soaker, count: int = 1000, times: int = 7) -> float:
    """Microseconds that one which does nothing takes of the processor that gets it: what the soaker loses by them.

    Call it from the load's processor. (Sending one takes about as long on a virtual machine: an exit, too.)
    """
    libc = ctypes.CDLL(None, use_errno=True)
    used: list[float] = []
    for _ in range(times):
        soaker.begin()
        for _ in range(count):
            if libc.syscall(_MEMBARRIER, _GLOBAL_EXPEDITED, 0, 0):
                raise OSError(ctypes.get_errno(), "membarrier")
            pause = time.monotonic() + 50e-6
            while time.monotonic() < pause:
                pass
        used.append(soaker.end().used_s)
    return statistics.median(used) * 1e6 / count
