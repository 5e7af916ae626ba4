"""What receiving a packet and forwarding it takes where interrupts are rare: packets by ``bursts.c``."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import CONTENDER_CPU
from lbarray.bpf.build import compile_program

__all__ = ["BURST", "CLIENT", "Bursts"]

#: Packets that a driver hands to the kernel in one go at most (NAPI's weight).
BURST = 64
PACKETS = 200_000
#: Whose packets these are.
CLIENT = "198.51.100.7"


class Bursts:
    """The program, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        here = Path(__file__).parent
        self._program = folder / "bursts"
        self._object = compile_program(here / "bursts.bpf.c", folder / "bursts.o")
        subprocess.run(["cc", "-O2", "-o", str(self._program), str(here / "bursts.c"), "-lbpf"], check=True)

    def receive_us(self, interface: str, mac: str, vip: str, *, inside: Sequence[str], burst: int = BURST) -> float:
        """Microseconds of the contender's processor for each packet that comes in by an interface there.

        :raises RuntimeError: the kernel would not (it needs Linux 5.18).
        """
        words = (str(self._program), str(self._object), interface, mac, CLIENT, vip, str(PACKETS), str(burst))
        command = [*inside, "taskset", "-c", str(CONTENDER_CPU), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"packets in bursts: {done.stderr}")
        return float(done.stdout) / 1000
