"""Keeps a processor awake and counts what is left of it: ``python -m benchmarks.soaker FILE``, at the lowest priority.

The part of its turns that it does not get is what everything else used of the processor: processes, system calls,
interrupts. Accounting by ticks sees interrupts badly, and a processor that sleeps in between is woken for each
packet, on a virtual machine by its host, which costs more than the packet does. (The method is that of ``cyclesoak``.)
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import CONTENDER_CPU, Bench

__all__ = ["MEMBARRIER", "Soaker"]

#: The system call's number.
MEMBARRIER = {"x86_64": 324}.get(os.uname().machine, 283)

_COUNT = struct.Struct("=Q")
#: Additions in one turn: some ten thousandths of a second.
TURN = 3000


class Soaker:
    """A soaker on the contender's processor.

    :ivar turns_s: turns a second while there is nothing else.
    """

    def __init__(self, bench: Bench) -> None:
        self.turns_s = 0.0
        path = bench.folder / "soaked"
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        root = str(Path(__file__).resolve().parent.parent)
        command = (sys.executable, "-m", "benchmarks.soaker", str(path))
        self._process: subprocess.Popen[bytes] = bench.start(
            *command, cpu=CONTENDER_CPU, inside=["env", f"PYTHONPATH={root}"]
        )
        while not self.turns:
            time.sleep(0.01)
        self.pause()

    @property
    def turns(self) -> int:
        """So far."""
        (turns,) = _COUNT.unpack_from(self._shared)
        return int(turns)

    def calibrate(self, seconds: float = 0.4) -> None:
        """How many turns there are while nobody asks for anything: the best of several short times, and of all before.

        Whatever else ran then would otherwise not be counted later.
        """
        self.resume()
        for _ in range(4):
            began, turns = time.monotonic(), self.turns
            time.sleep(seconds / 4)
            self.turns_s = max(self.turns_s, (self.turns - turns) / (time.monotonic() - began))
        self.pause()

    def used(self, turns: int, seconds: float) -> float:
        """Seconds of the processor that others used, by the turns that were left in so many seconds."""
        return max(0.0, seconds - turns / self.turns_s)

    def pause(self) -> None:
        """Leave the processor alone."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)


def main(path: str) -> None:
    """Count until killed."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    ctypes.CDLL(None).syscall(MEMBARRIER, 4, 0, 0)  # REGISTER_GLOBAL_EXPEDITED: see benchmarks/interrupts.py
    with Path(path).open("r+b") as file:
        shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
    turns = 0
    while True:
        for _ in range(TURN):
            pass
        turns += 1
        _COUNT.pack_into(shared, 0, turns)


if __name__ == "__main__":
    main(sys.argv[1])
