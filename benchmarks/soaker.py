"""What others use of a processor, by what they leave to a soaker of the lowest priority (``soaker.c``).

Accounting by ticks sees interrupts badly, and a processor that sleeps in between is woken for each packet, on a virtual
machine by its host, which costs more than the packet does.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

import attrs

from benchmarks.harness import CONTENDER_CPU, Bench

__all__ = ["Soaked", "Soaker"]

_SOAKED = struct.Struct("=QQQ")
_NOTHING = (0, 0, 0)


@attrs.frozen
class Soaked:
    """What there was in some time.

    :ivar used_s: seconds in which others had the processor.
    :ivar look_ns: of one look at the clock, by which the machine's speed shows: it is not always the same.
    """

    used_s: float
    look_ns: float


class Soaker:
    """A soaker on the contender's processor; it rests until :meth:`begin`.

    :ivar best_ns: the quickest look so far: see :meth:`at_best`.
    """

    def __init__(self, bench: Bench) -> None:
        program, path = bench.folder / "soaker", bench.folder / "soaked"
        subprocess.run(["cc", "-O2", "-o", str(program), str(Path(__file__).with_name("soaker.c"))], check=True)
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._process = bench.start(str(program), str(path), cpu=CONTENDER_CPU)
        while self._so_far() == _NOTHING:
            if self._process.poll() is not None:
                raise RuntimeError(f"the soaker has ended\n{bench.logs()}")
            time.sleep(0.01)
        self.best_ns = float("inf")
        self._before: tuple[int, ...] = _NOTHING
        self._began = 0.0
        self._rest()

    def begin(self) -> None:
        """Soak, and count from here."""
        self._process.send_signal(signal.SIGCONT)
        self._before, self._began = self._so_far(), time.monotonic()

    def end(self) -> Soaked:
        """What was used since, and rest.

        :raises RuntimeError: everything was, so that nothing is known of the machine's speed.
        """
        passed = time.monotonic() - self._began
        mine, blocks, shortest = (now - then for now, then in zip(self._so_far(), self._before, strict=True))
        self._rest()
        if not blocks:
            raise RuntimeError("others had the contender's processor all the time")
        look_ns = shortest / blocks
        self.best_ns = min(self.best_ns, look_ns)
        return Soaked(max(0.0, passed - mine / 1e9), look_ns)

    def at_best(self, time: float, look_ns: float) -> float:
        """What would have been a time in which looks took so long, had they been the quickest so far.

        Who shares a real processor with a virtual one makes it half as quick for some seconds, and then not.
        """
        return time * self.best_ns / look_ns

    def _so_far(self) -> tuple[int, ...]:
        return _SOAKED.unpack_from(self._shared)

    def _rest(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
