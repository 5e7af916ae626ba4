"""Load by h2load (nghttp2): multiplexed HTTP/2, and requests at a steady rate whose times are told one by one."""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
from pathlib import Path

from benchmarks.harness import LOAD_CPU, SECONDS, Row

__all__ = ["at_rate", "multiplexed"]


def _h2load(*options: str) -> str:
    command = ["taskset", "-c", str(LOAD_CPU), "h2load", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    if found is None or int(found[3]) or int(found[4]):  # the speed of wrong answers is of no interest
        raise RuntimeError(f"h2load said: {done.stdout}{done.stderr}")
    return done.stdout


def multiplexed(url: str, *, connections: int = 8, streams: int = 16) -> Row:
    """As much as goes for a few seconds over HTTP/2: ``rps`` and ``requests``.

    :raises RuntimeError: some of them failed.
    """
    said = _h2load("-c", str(connections), "-m", str(streams), "-D", f"{SECONDS:g}", url)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", said)
    total = re.search(r"requests: (\d+) total", said)
    if rate is None or total is None:
        raise RuntimeError(f"h2load said: {said}")
    return {"requests": float(total[1]), "rps": float(rate[1])}


def at_rate(url: str, rate: float, *, connections: int = 32) -> Row:
    """HTTP/1.1 at ``rate`` requests a second: ``p50`` and ``p99``, milliseconds, and the ``rps`` that came of it.

    :raises RuntimeError: some of them failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        each = max(1, round(rate / connections))
        options = ("--h1", "-c", str(connections), f"--rps={each}", "-D", f"{SECONDS:g}", f"--log-file={log}")
        _h2load(*options, url)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if any(row[1] != "200" for row in rows):
        raise RuntimeError(f"answers besides 200 from {url}")
    times = [int(row[2]) / 1000 for row in rows]
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "rps": len(times) / SECONDS}
