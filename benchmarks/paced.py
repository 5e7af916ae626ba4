"""Requests at a steady rate (``paced.c``): so that contenders can be compared while they are asked for the same."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import LOAD_CPU, Row

__all__ = ["Late", "Paced"]


class Late(RuntimeError):
    """The client could not ask as often as it should."""


class Paced:
    """The client, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        self._program = folder / "paced"
        source = Path(__file__).with_name("paced.c")
        subprocess.run(["cc", "-O2", "-o", str(self._program), str(source), "-lm"], check=True)

    def ask(
        self, address: str, path: str, *, rate: float, seconds: float, connections: int, inside: Sequence[str]
    ) -> Row:
        """``requests`` that were answered of ``rate`` a second; from so many connections, or with 0 from one each.

        :raises Late: more than a tenth was not asked in time.
        :raises RuntimeError: some failed.
        """
        words = (str(self._program), address, path, f"{rate:.0f}", f"{seconds:g}", str(connections))
        done = subprocess.run(
            [*inside, "taskset", "-c", str(LOAD_CPU), *words], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the paced client could not begin: {done.stderr}")
        answered, failed, late = map(int, done.stdout.split())
        if failed:
            raise RuntimeError(f"of {rate:.0f} requests a second {failed} failed")
        if late > (answered + late) / 10:
            raise Late(f"of {rate:.0f} requests a second {late} were not asked in time")
        return {"requests": float(answered), "rps": answered / seconds}
