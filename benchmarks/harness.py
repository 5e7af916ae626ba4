"""How everything here is measured: contenders alternate within each round, on pinned processors, medians count.

The contender has processor 0 to itself; load generator and back ends share processor 1. So requests per second compare
contenders on one machine, and microseconds per request tell what one of them costs, whoever was the bottleneck.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.table import Table

__all__ = [
    "CONTENDER_CPU",
    "LOAD_CPU",
    "Bench",
    "cpu_of",
    "idle_s",
    "ratio_table",
    "single_table",
    "targets_table",
    "wrk",
]

CONTENDER_CPU, LOAD_CPU = 0, 1
RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))

Row = dict[str, float]


def cpu_of(pid: int) -> float:
    """Seconds of processor time that a process's threads have used (``/proc/PID/task/*/schedstat``)."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9


def idle_s(cpu: int = CONTENDER_CPU) -> float:
    """Seconds since boot in which a processor was idle: the kernel measures these, and only samples the others."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            ticks = [int(word) for word in line.split()[1:9]]
            return (ticks[3] + ticks[4]) / os.sysconf("SC_CLK_TCK")
    raise LookupError(f"no processor {cpu}")


class Bench:
    """Processes and files of one benchmark; all gone behind the ``with`` block."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lbarray-bench-"))
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *command: str, cpu: int | str, inside: Sequence[str] = ()) -> subprocess.Popen[bytes]:
        """Start a process on one processor; ``inside`` is a prefix such as ``ip netns exec NAME``."""
        log = (self.folder / f"{Path(command[0]).name}-{len(self._processes)}.log").open("wb")
        process = subprocess.Popen(
            [*inside, "taskset", "-c", str(cpu), *command], stdout=log, stderr=log, cwd=self.folder
        )
        self._processes.append(process)
        return process

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """End a process, by force if it must be."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @staticmethod
    def must_be_free(*ports: int) -> None:
        """:raises RuntimeError: somebody else listens there, and would be measured."""
        for port in ports:
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError as error:
                raise RuntimeError(f"port {port} is taken: {error}") from None

    def wait_port(self, port: int, host: str = "127.0.0.1", timeout_s: float = 15.0) -> None:
        """Until somebody listens.

        :raises RuntimeError: nobody did; with the last lines of every log.
        """
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                socket.create_connection((host, port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"nobody listens on {host}:{port}\n{self.logs()}")

    def logs(self) -> str:
        """The last lines of every process."""
        return "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in self.folder.glob("*.log"))

    def nginx(
        self, name: str, servers: str, *, inside: Sequence[str] = (), cpu: int = LOAD_CPU
    ) -> subprocess.Popen[bytes]:
        """An nginx of one process on the load's processor."""
        work = self.folder / name
        work.mkdir()
        paths = "".join(f"{kind}_temp_path {work}/{kind}; " for kind in ("client_body", "proxy", "fastcgi"))
        paths += f"uwsgi_temp_path {work}/uwsgi; scgi_temp_path {work}/scgi;"
        (work / "nginx.conf").write_text(
            f"daemon off; master_process off; worker_processes 1; pid {work}/pid; error_log {work}/error.log crit;\n"
            "events { worker_connections 16384; }\n"
            f"http {{ access_log off; keepalive_requests 100000000; sendfile on; tcp_nodelay on; {paths}\n"
            f"{servers}\n}}\n"
        )
        return self.start("nginx", "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf", cpu=cpu, inside=inside)

    def rounds(self, contenders: Mapping[str, Callable[[], Row]], rounds: int = ROUNDS) -> dict[str, list[Row]]:
        """Each contender once per round."""
        rows: dict[str, list[Row]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, measure in contenders.items():
                rows[name].append(measure())
        return rows


def wrk(url: str, *options: str, connections: int = 32, inside: Sequence[str] = (), seconds: float = SECONDS) -> Row:
    """Load for a few seconds: ``rps`` and ``requests``.

    :raises RuntimeError: some of them failed.
    """
    command = [*inside, "taskset", "-c", str(LOAD_CPU), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", *options]
    out = subprocess.run([*command, url], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    if found is None or rate is None:
        raise RuntimeError(f"wrk said: {out}")
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, errors.groups())) if errors else 0
    if failed:  # the speed of wrong answers is of no interest
        raise RuntimeError(f"{failed} of {found[1]} requests to {url} failed:\n{out}")
    return {"requests": float(found[1]), "rps": float(rate[1])}


def ratio_table(
    name: str, title: str, rows: Mapping[str, Sequence[Row]], *, against: str, columns: Sequence[str]
) -> None:
    """Print medians with each contender's ratio to ``against``, and add them to the results of ``name``."""
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
        table.add_column(f"÷ {against}", justify="right")
    medians = {
        contender: {column: statistics.median(row[column] for row in measured) for column in columns}
        for contender, measured in rows.items()
    }
    for contender, values in medians.items():
        cells = []
        for column in columns:
            measured = [row[column] for row in rows[contender]]
            reference = medians[against][column]
            spread = f"{_shown(values[column])} [{_shown(min(measured))}-{_shown(max(measured))}]"
            cells += [spread, f"{values[column] / reference:.2f}" if reference else ""]
        table.add_row(contender, *cells)
    Console(width=150, highlight=False).print(table)
    rounds = {key: list(value) for key, value in rows.items()}
    _add_result(name, title, {"median": medians, "against": against, "rounds": rounds})


def targets_table(
    name: str,
    title: str,
    rows: Mapping[str, Sequence[Row]],
    *,
    against: Sequence[Row],
    targets: Mapping[str, float],
) -> None:
    """Say which of the ratios to ``against`` meet their targets: at least those above 1, at most those below."""
    verdicts: dict[str, dict[str, object]] = {}
    for contender, measured in rows.items():
        for column, target in targets.items():
            reference = _median(against, column)
            if not reference:  # too little to be seen beside whatever else ran on this machine
                print(f"  {contender}: {column}: no reference, the machine was not idle")
                continue
            ratio = _median(measured, column) / reference
            met = ratio >= target if target > 1 else ratio <= target
            verdicts.setdefault(contender, {})[column] = {"ratio": ratio, "target": target, "met": met}
            sign = "≥" if target > 1 else "≤"
            print(f"  {contender}: {column} {ratio:.2f} (target {sign} {target:g}): {'met' if met else 'MISSED'}")
    _add_result(name, title, verdicts)


def _median(rows: Sequence[Row], column: str) -> float:
    return statistics.median(row[column] for row in rows)


def single_table(name: str, title: str, rows: Mapping[str, Sequence[Row]]) -> None:
    """Print medians of what has no peer to be compared with, and add them to the results of ``name``."""
    columns = list(next(iter(rows.values()))[0])
    table = Table("", *columns, title=title, title_justify="left")
    medians = {
        case: {column: statistics.median(row[column] for row in measured) for column in columns}
        for case, measured in rows.items()
    }
    for case, values in medians.items():
        table.add_row(case, *(_shown(values[column]) for column in columns))
    Console(width=150, highlight=False).print(table)
    _add_result(name, title, {"median": medians, "rounds": {key: list(value) for key, value in rows.items()}})


def _add_result(name: str, title: str, result: Mapping[str, object]) -> None:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    whole = json.loads(path.read_text()) if path.exists() else {}
    whole[title] = result
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
