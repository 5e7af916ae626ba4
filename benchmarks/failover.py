"""A dead, a cut off and a leaving owner's successor, beside keepalived: ``python -m benchmarks failover``

Two nodes with a web server each on one switch, and a client that begins a new TCP connection to the VIP every 5 ms. At
a moment that has nothing to do with the advertisements,

``kill``
    every process of the owner gets SIGKILL; what its kernel still does, it does.
``cut``
    the owner's cable is pulled.
``handover``
    the owner gives the VIP up on purpose: ``lbarray handover``; keepalived has no such command and gets SIGTERM.

``first_s`` is the time until a connection is answered again (the first that was begun after one that was not; 0 when
all were), ``whole_s`` until every one is, ``failed`` how many were not. keepalived's web server is an nginx that is
bound to every address; it is killed with it.

Then lbarray alone, three nodes, ``interval = 100ms``: 200 connections that are held open and 500 requests a second,
while the owner is killed, and while the VIP is handed over.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from benchmarks.harness import Bench, Row, ratio_table, single_table
from lbarray.testbed.knocking import PATIENCE_S, read_knocks
from lbarray.testbed.namespaces import Host, Network
from lbarray.testbed.nodes import NODES, VIP, Array, wait_for

INTERVALS_S = (1.0, 0.1, 0.01)
RUNS = int(os.environ.get("BENCH_FAILOVER_RUNS", "10"))
PAUSE_S = 0.005
PAIR = dict(list(NODES.items())[:2])
KINDS = ("kill", "cut", "handover")


class _Contender(Protocol):
    """Two nodes that can be made to lose the VIP and to come back."""

    network: Network
    folder: Path

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def kill(self, owner: str) -> None:
        """SIGKILL to all of it."""

    def hand_over(self, owner: str) -> None:
        """Give the VIP up in order."""

    def come_back(self, name: str) -> None:
        """Run again, as a backup."""


def main() -> None:
    """At three advertisement intervals."""
    with Bench() as bench:
        for interval_s in INTERVALS_S:
            rows: dict[str, dict[str, list[Row]]] = {kind: {"keepalived": [], "lbarray": []} for kind in KINDS}
            for name, make in (("keepalived", _Keepalived), ("lbarray", _Lbarray)):
                with make(bench, interval_s) as contender:
                    wait_for(lambda it=contender: _owner(it), "an owner", 20, 0.05)  # type: ignore[misc]
                    time.sleep(4 * interval_s + 1.5)
                    for kind in KINDS:
                        rows[kind][name] = [_lose(contender, kind, interval_s) for _ in range(RUNS)]
            for kind in KINDS:
                title = f"{kind}, interval {interval_s:g} s, {RUNS} runs"
                columns = ["first_s", "whole_s", "failed"]
                ratio_table("failover", title, rows[kind], against="keepalived", columns=columns)
        _under_load()


def _owner(contender: _Contender) -> str | None:
    holders = [name for name in PAIR if contender.network.hosts[name].has_address(VIP)]
    return holders[0] if len(holders) == 1 else None


@contextmanager
def _knocking(client: Host, folder: Path, seconds: float) -> Iterator[Path]:
    path = folder / "knocks.jsonl"
    with path.open("wb") as out:
        knocker = client.start(
            sys.executable, "-m", "lbarray.testbed.knocking", VIP, "80", str(PAUSE_S), str(seconds), log=out
        )
        wait_for(lambda: path.stat().st_size, "the first knock", 10, 0.01)
        yield path
        knocker.wait(timeout=seconds + 10)


def _lose(contender: _Contender, kind: str, interval_s: float) -> Row:
    wait_for(lambda: _owner(contender), "one owner", 20, 0.05)
    patience_s = 4 * interval_s + 1.5
    with _knocking(contender.network.hosts["client"], contender.folder, patience_s + 0.5) as path:
        time.sleep(0.2 + random.random() * interval_s)
        owner = wait_for(lambda: _owner(contender), "one owner", 20, 0.001)
        began = time.monotonic()
        if kind == "kill":
            contender.kill(owner)
        elif kind == "cut":
            contender.network.link(owner, False)
        else:
            contender.hand_over(owner)
    knocks = [knock for knock in read_knocks(path.read_text()) if knock.began >= began - PATIENCE_S]
    later = [knock for knock in knocks if knock.began >= began]
    # A connection that was begun before may be lost, too: it counts as failed, but not in the times.
    failed = [knock for knock in knocks if knock.answered is None]
    first_failed = min((knock.began for knock in failed if knock.began >= began), default=began)
    last_failed = max((knock.began for knock in failed if knock.began >= began), default=None)
    answered = [knock.answered for knock in later if knock.answered is not None and knock.began >= first_failed]
    if not answered:
        raise RuntimeError(f"{kind} at an interval of {interval_s} s: nobody answered for {patience_s} s")
    if kind == "cut":
        contender.network.link(owner, True)
    elif kind == "kill" or isinstance(contender, _Keepalived):
        contender.come_back(owner)
    time.sleep(4 * interval_s + 2.0)
    return {
        "first_s": min(answered) - began if last_failed is not None else 0.0,
        "whole_s": 0.0 if last_failed is None else last_failed + PAUSE_S - began,
        "failed": float(len(failed)),
    }


class _Lbarray:
    """Two nodes of an array, back ends behind them."""

    def __init__(self, bench: Bench, interval_s: float) -> None:
        def edit(text: str) -> str:
            return text.replace(
                '[failover]\ninterval = "100ms"', f"[failover]\npreempt = false\ninterval = {interval_s}"
            )

        self._array = Array(nodes=PAIR, edit=edit)
        self.network = self._array.network
        self.folder = self._array.folder

    def __enter__(self) -> Self:
        self._array.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._array.close()

    def kill(self, owner: str) -> None:
        self._array.kill_node(owner)

    def hand_over(self, owner: str) -> None:
        said = self._array.command(owner, "handover")
        if "moved to" not in said:
            raise RuntimeError(said)

    def come_back(self, name: str) -> None:
        self._array.start_node(name)


class _Keepalived:
    """keepalived and nginx on each of two nodes."""

    def __init__(self, bench: Bench, interval_s: float) -> None:
        self.network = Network()
        self.folder = bench.folder / f"keepalived-{interval_s}"
        self._interval_s = interval_s
        self._starts = 0

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self.network.__enter__()
        self.network.add("client", "10.77.0.199/24")
        for name, address in PAIR.items():
            self.network.add(name, f"{address}/24")
            self.come_back(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.network.close()

    def kill(self, owner: str) -> None:
        self.network.hosts[owner].kill()

    def hand_over(self, owner: str) -> None:
        for pid in self.network.hosts[owner].pids():
            # The parent alone: it tells its children.
            if Path(f"/proc/{pid}/comm").read_text().strip() == "keepalived":
                os.kill(pid, signal.SIGTERM)
                return

    def come_back(self, name: str) -> None:
        host = self.network.hosts[name]
        for pid in host.pids():
            os.kill(pid, signal.SIGKILL)
        if host.has_address(VIP):  # left by the killed one; keepalived itself would find it and keep it
            host.run("ip", "addr", "del", f"{VIP}/24", "dev", "eth0")
        self._starts += 1
        work = self.folder / f"node-{name}-{self._starts}"
        work.mkdir()
        (work / "keepalived.conf").write_text(
            "global_defs {\n  vrrp_version 3\n}\nvrrp_instance v {\n  state BACKUP\n  nopreempt\n  interface eth0\n"
            f"  virtual_router_id 51\n  priority {150 if name == 'a' else 130}\n  advert_int {self._interval_s}\n"
            f"  virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n"
        )
        pids = [f"--{kind}pid={work}/{kind or 'main'}.pid" for kind in ("", "vrrp_", "checkers_")]
        (work / "nginx.conf").write_text(
            f"daemon off; master_process off; worker_processes 1; pid {work}/nginx.pid; error_log {work}/error.log;\n"
            "events {}\nhttp { access_log off; server { listen 80; return 204; } }\n"
        )
        with (work / "log").open("wb") as log:
            host.start("keepalived", "-n", "-l", "-P", "-f", f"{work}/keepalived.conf", *pids, log=log)
            host.start("nginx", "-e", f"{work}/error.log", "-c", f"{work}/nginx.conf", log=log)


def _under_load() -> None:
    rows: dict[str, list[Row]] = {"owner killed": [], "handed over": []}
    for title, measured in rows.items():
        with Array() as array:
            owner = array.wait_ready()
            holding = array.hold_connections(200)
            holding.ask()
            clients = array.start_clients(array.load(seconds=6.0, threads=25, pause_s=0.045))
            time.sleep(2.0)
            if title == "owner killed":
                array.kill_node(owner)
            else:
                array.command(owner, "handover")
            time.sleep(2.0)
            held = holding.ask()
            answers = clients.answers(20)
            others = set(NODES) - {owner} if title == "owner killed" else set(NODES)
            measured.append(
                {
                    "held": float(sum(node in others for node in held.nodes)),
                    "broken": float(len(held.broken_of(others))),
                    "requests": float(len(answers)),
                    "failed": float(sum(not answer.good for answer in answers)),
                }
            )
    single_table("failover", "connections of other nodes, and 500 requests a second", rows)


if __name__ == "__main__":
    main()
