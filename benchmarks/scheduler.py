"""The packet path beside others, in the same place. ``python -m benchmarks scheduler``

A client, a scheduler and workers (nginx) as namespaces on one switch, with one worker and with three. HAProxy and
nginx end connections and carry the answers; nftables and lbarray pass the clients' packets on, and the workers answer
directly.

There are two processors, and each contender is measured in several ways in each round:

* *alone*: the scheduler's node has processor 0, everything else processor 1, which is then the limit. ``ms/1000`` is
  what 1,000 requests take of processor 0: the scheduler's process, its system calls, and all that the kernel does for
  its packets, interrupts included (:mod:`benchmarks.soaker`).
* *at one rate*: the same, while all of them are asked for half of what HAProxy could do alone.
* *array*: scheduler and workers share processor 0, client and switch have processor 1. ``requests/s`` is what one
  processor of an array can serve, whatever it spends on scheduling. ``array`` and ``client`` are the busy parts of both
  processors: the array is the limit where it is near 1.
* *in bursts*: what one packet takes of a processor that is handed 64 at a time, as by the driver of a busy interface.
  Of those that attach to the path behind the driver.

``interrupts`` are those of one request: received by processor 0 from the other one and sent there. ``without`` is
``ms/1000`` less what so many take (:mod:`benchmarks.interrupts`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs

from benchmarks import interrupts
from benchmarks.bursts import BURST, CLIENT, Bursts
from benchmarks.harness import (
    CONTENDER_CPU,
    LOAD_CPU,
    ROUNDS,
    Bench,
    Row,
    idle_s,
    ratio_table,
    targets_table,
    wrk,
)
from benchmarks.interrupts import Interrupts
from benchmarks.paced import Late, Paced
from benchmarks.soaker import Soaker
from lbarray.bpf.build import compile_program
from lbarray.testbed.namespaces import Host, Network
from lbarray.testbed.nodes import wait_for

VIP = "10.78.0.100"
WORKERS = {f"w{number}": f"10.78.0.{10 + number}" for number in (1, 2, 3)}
MIB = 1 << 20
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
#: Of each measurement: with three rounds the whole takes some eleven minutes.
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
#: Of the planes that the kernel runs, against HAProxy: requests per second, and processor time per request.
FASTER, CHEAPER = 1.5, 5.0

AGAINST = "haproxy tcp"
COSTS = ["ms/1000", "interrupts", "without"]
#: Contenders that can be handed packets in bursts.
BEHIND_THE_DRIVER = ("nftables fwd", "lbarray tc")

Stop = Callable[[], None]


@attrs.frozen
class Load:
    """What is asked.

    :ivar connections: as many at a time.
    :ivar paced: as many at one rate, 0: each request has its own; ``None``: is not asked for at a rate.
    """

    name: str
    path: str
    connections: int
    options: tuple[str, ...] = ()
    octets: int = 0
    paced: int | None = None


LOADS = (
    Load("keepalive, 50 octets", "small", 48, paced=48),
    Load("a connection per request", "small", 48, ("-H", "Connection: close"), paced=0),
    Load("downloads of 1 MiB", "1m", 8, octets=MIB),
)


class Measured:
    """One load's rows of each contender: in the array, alone, and alone at one rate.

    :ivar late: why there is nothing at one rate: the client could not keep it, on a machine with ups and downs.
    """

    def __init__(self, load: Load, names: Sequence[str]) -> None:
        self.load = load
        self.array: dict[str, list[Row]] = {name: [] for name in names}
        self.alone: dict[str, list[Row]] = {name: [] for name in names}
        self.paced: dict[str, list[Row]] = {name: [] for name in names}
        self.late = ""

    @property
    def rate(self) -> float:
        """Requests a second, of all contenders: half of what HAProxy could do alone in the first round."""
        return self.alone[AGAINST][0]["rps"] / 2

    def show(self, title: str) -> None:
        """Print the tables, and which targets are met."""
        for rows in self.array.values():
            for row in rows:
                row["MB/s"], row["requests/s"] = row["rps"] * self.load.octets / 1e6, row["rps"]
        many = "MB/s" if self.load.octets else "requests/s"
        self._table(title, self.array, [many, "array", "client"], {many: FASTER})
        self._table(f"{title}, alone", self.alone, COSTS, {"ms/1000": 1 / CHEAPER})
        if self.late:
            print(f"{title}, alone, at one rate: no result: {self.late}")
        elif any(self.paced.values()):
            self._table(f"{title}, alone, {self.rate:,.0f} a second", self.paced, COSTS, {"ms/1000": 1 / CHEAPER})

    @staticmethod
    def _table(title: str, rows: dict[str, list[Row]], columns: list[str], targets: dict[str, float]) -> None:
        ratio_table("scheduler", title, rows, against=AGAINST, columns=columns)
        ours = {name: row for name, row in rows.items() if name.startswith("lbarray") and name != "lbarray packet"}
        targets_table("scheduler", f"{title}: targets", ours, against=rows[AGAINST], targets=targets)


def main() -> None:
    """Small keepalive requests, one connection per request, and large downloads."""
    os.sched_setaffinity(0, {LOAD_CPU})
    with Network() as network, Bench() as bench:
        place = Place(network, bench)
        for count in (1, 3):
            place.compare(dict(list(WORKERS.items())[:count]))


class Place:
    """The namespaces, and how each contender is started in the scheduler's."""

    def __init__(self, network: Network, bench: Bench) -> None:
        self._network = network
        self._bench = bench
        self._client = network.add("client", "10.78.0.1/24")
        self._scheduler = network.add("scheduler", "10.78.0.2/24", f"{VIP}/24")
        network.steer("client", host_cpu=LOAD_CPU, port_cpu=LOAD_CPU)
        network.steer("scheduler", host_cpu=CONTENDER_CPU, port_cpu=LOAD_CPU)
        # XDP meets packets as they would be on a wire: with checksums, and none larger than the wire allows.
        self._client.run("ethtool", "-K", "eth0", "tx", "off")
        (bench.folder / "1m").write_bytes(b"x" * MIB)
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        for name, address in WORKERS.items():
            self._servers[name] = _worker(bench, network.add(name, f"{address}/24"), name)
        self._paced, self._bursts = Paced(bench.folder), Bursts(bench.folder)
        self._soaker = Soaker(bench)
        self._interrupt_us = interrupts.cost_us(self._soaker)
        print(f"one interrupt from the other processor takes {self._interrupt_us:.2f} us")
        if not STREAM_MODULE.exists():
            print("nginx stream is left out: libnginx-mod-stream is not installed (tools/system-packages)")

    def compare(self, workers: dict[str, str]) -> None:
        """All contenders with these workers, in turns."""
        contenders: dict[str, Callable[[], Stop]] = {
            AGAINST: lambda: self._haproxy(workers),
            "nginx stream": lambda: self._nginx(workers),
            "nftables fwd": lambda: self._nftables(workers),
            "lbarray tc": lambda: self._lbarray(workers, "tc"),
            "lbarray generic xdp": lambda: self._lbarray(workers, "xdp-generic"),
            "lbarray native xdp": lambda: self._native(workers),
            "lbarray packet": lambda: self._lbarray(workers, "packet"),
        }
        if not STREAM_MODULE.exists():
            del contenders["nginx stream"]
        measured = [Measured(load, list(contenders)) for load in LOADS]
        in_bursts: dict[str, list[Row]] = {name: [] for name in BEHIND_THE_DRIVER}
        for _ in range(ROUNDS):
            for name, start in contenders.items():
                stop = start()
                try:
                    self._await_answers()
                    self._arrange(LOAD_CPU)
                    for each in measured:
                        each.alone[name].append(self._measure_alone(partial(self._measure, each.load)))
                    if len(workers) == 1:  # with more it is no other
                        for each in measured:
                            self._at_one_rate(each, name)
                    self._arrange(CONTENDER_CPU)
                    before = self._received(workers)
                    for each in measured:
                        each.array[name].append(self._measure(each.load))
                    self._all_worked(before, self._received(workers))
                    if name in in_bursts:
                        in_bursts[name].append(self._in_bursts())
                except RuntimeError as error:
                    raise RuntimeError(f"{name}: {error}") from error
                finally:
                    stop()
        for each in measured:
            self._at_best(each)
            each.show(f"{each.load.name}, {_workers(len(workers))}")
        title = f"packets in bursts of {BURST}, {_workers(len(workers))}"
        ratio_table("scheduler", title, in_bursts, against="nftables fwd", columns=["us/packet"])

    # The arrangement of the processors

    def _arrange(self, cpu: int) -> None:
        """Let the workers run on this processor."""
        for name, server in self._servers.items():
            os.sched_setaffinity(server.pid, {cpu})
            self._network.steer(name, host_cpu=cpu, port_cpu=LOAD_CPU)

    def _measure(self, load: Load) -> Row:
        began, idle = time.monotonic(), [idle_s(cpu) for cpu in (CONTENDER_CPU, LOAD_CPU)]
        row = wrk(
            f"http://{VIP}/{load.path}",
            *load.options,
            connections=load.connections,
            inside=self._client.inside(),
            seconds=SECONDS,
        )
        passed = time.monotonic() - began
        first, second = (
            max(0.0, passed - (idle_s(cpu) - before))
            for cpu, before in zip((CONTENDER_CPU, LOAD_CPU), idle, strict=True)
        )
        return {**row, "array": first / passed, "client": second / passed}

    def _measure_alone(self, measure: Callable[[], Row]) -> Row:
        """What 1,000 requests take of the scheduler's processor, and ``packets`` that come in there for one."""
        self._soaker.begin()
        try:
            began = time.monotonic()
            came, packets = Interrupts.so_far(), self._packets(self._scheduler)
            row = measure()
            passed = time.monotonic() - began
        finally:
            soaked = self._soaker.end()
        many = max(1.0, row["requests"])
        return {
            **row,
            "busy": soaked.used_s / passed,
            "us": soaked.used_s * 1e6 / many,
            "look_ns": soaked.look_ns,
            "interrupts": Interrupts.so_far().since(came) / many,
            "packets": (self._packets(self._scheduler) - packets) / many,
        }

    def _at_one_rate(self, measured: Measured, name: str) -> None:
        connections = measured.load.paced
        if connections is None or measured.late:
            return

        def ask() -> Row:
            return self._paced.ask(
                *(VIP, measured.load.path),
                rate=measured.rate,
                seconds=SECONDS,
                connections=connections,
                inside=self._client.inside(),
            )

        try:
            measured.paced[name].append(self._measure_alone(ask))
        except Late as error:
            measured.late = f"{name}: {error}"

    def _at_best(self, measured: Measured) -> None:
        """What the rows would say, had the machine been as quick as at its quickest all the time."""
        for rows in (*measured.alone.values(), *measured.paced.values()):
            for row in rows:
                row["ms/1000"] = self._soaker.at_best(row["us"], row["look_ns"])
                row["without"] = max(0.0, row["ms/1000"] - row["interrupts"] * self._interrupt_us)

    def _in_bursts(self) -> Row:
        """Behind the scheduler they are lost: what becomes of them is not measured."""
        rules = self._bench.folder / "lost.nft"
        rules.write_text(
            'table netdev lost {\n  chain lost {\n    type filter hook ingress device "p-scheduler" priority 0\n'
            f"    ip saddr {CLIENT} drop\n  }}\n}}\n"
        )
        self._network.at_switch("nft", "-f", str(rules))
        try:
            inside = self._scheduler.inside()
            return {"us/packet": self._bursts.receive_us("eth0", self._scheduler.mac(), VIP, inside=inside)}
        finally:
            self._network.at_switch("nft", "delete", "table", "netdev", "lost")

    def _await_answers(self) -> None:
        """Until the contender answers: from every worker, where it does not choose by the client's port alone."""
        ask = ("curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", f"http://{VIP}/small")
        wait_for(lambda: self._client.run(*ask, check=False) == "200", "an answer", 10, 0.05)

    def _received(self, workers: dict[str, str]) -> dict[str, int]:
        """Packets that came in at each worker."""
        return {name: self._packets(self._network.hosts[name]) for name in workers}

    @staticmethod
    def _packets(host: Host) -> int:
        return int(host.run("cat", "/sys/class/net/eth0/statistics/rx_packets"))

    def _all_worked(self, before: dict[str, int], after: dict[str, int]) -> None:
        came = {name: after[name] - before[name] for name in before}
        if min(came.values()) < sum(came.values()) / len(came) / 3:
            raise RuntimeError(f"packets to the workers are not spread: {came}")

    # The contenders

    def _haproxy(self, workers: dict[str, str]) -> Stop:
        servers = "".join(f"  server {name} {address}:80\n" for name, address in workers.items())
        (self._bench.folder / "haproxy.cfg").write_text(
            "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n"
            f"  timeout server 30s\nfrontend f\n  bind {VIP}:80\n  default_backend b\nbackend b\n{servers}"
        )
        return self._started("haproxy", "-db", "-f", "haproxy.cfg")

    def _nginx(self, workers: dict[str, str]) -> Stop:
        servers = "".join(f"server {address}:80; " for address in workers.values())
        work = self._bench.folder
        (work / "stream.conf").write_text(
            f"load_module {STREAM_MODULE};\ndaemon off; master_process off; worker_processes 1;\n"
            f"pid {work}/stream.pid; error_log {work}/stream.error crit;\nevents {{ worker_connections 4096; }}\n"
            f"stream {{ upstream workers {{ {servers} }} server {{ listen {VIP}:80; proxy_pass workers; }} }}\n"
        )
        return self._started("nginx", "-e", f"{work}/stream.error", "-c", f"{work}/stream.conf")

    def _nftables(self, workers: dict[str, str]) -> Stop:
        macs = [self._network.hosts[name].mac() for name in workers]
        chosen = macs[0]
        if len(macs) > 1:
            listed = ", ".join(f"{place} : {mac}" for place, mac in enumerate(macs))
            chosen = f"jhash ip saddr . tcp sport mod {len(macs)} map {{ {listed} }}"
        rules = self._bench.folder / "fwd.nft"
        rules.write_text(
            'table netdev balance {\n  chain forward {\n    type filter hook ingress device "eth0" priority 0;\n    '
            f"ip daddr {VIP} tcp dport 80 ether saddr set {self._scheduler.mac()} ether daddr set {chosen} "
            'fwd to "eth0"\n  }\n}\n'
        )
        self._scheduler.run("nft", "-f", str(rules))
        return lambda: _nothing(self._scheduler.run("nft", "delete", "table", "netdev", "balance"))

    def _lbarray(self, workers: dict[str, str], plane: str) -> Stop:
        wanted = {
            "folder": str(self._bench.folder),
            "vip": VIP,
            "plane": plane,
            "workers": {name: (address, self._network.hosts[name].mac()) for name, address in workers.items()},
        }
        return self._started(sys.executable, "-m", "benchmarks.static_scheduler", json.dumps(wanted))

    def _native(self, workers: dict[str, str]) -> Stop:
        """What XDP sends back by a veth arrives only where the other end has a program too; its work is a thread's."""
        passing = compile_program(Path(__file__).parent / "xdp_pass.bpf.c", self._bench.folder / "pass.o")
        self._network.attach_at_switch("scheduler", passing)
        stop = self._lbarray(workers, "xdp")
        self._await_answers()
        self._threads("1")

        def undo() -> None:
            self._threads("0")
            stop()
            self._network.attach_at_switch("scheduler", None)

        return undo

    def _threads(self, on: str) -> None:
        self._scheduler.run("sh", "-c", f"echo {on} > /sys/class/net/eth0/threaded")
        time.sleep(0.2)
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "comm").read_text().startswith("napi/eth0"):
                    os.sched_setaffinity(int(entry.name), {CONTENDER_CPU})
            except OSError:
                continue

    def _started(self, *command: str) -> Stop:
        root = str(Path(__file__).resolve().parent.parent)
        inside = ["env", f"PYTHONPATH={root}", *self._scheduler.inside()]
        process = self._bench.start(*command, cpu=CONTENDER_CPU, inside=inside)
        time.sleep(0.3)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} has ended\n{self._bench.logs()}")
        return lambda: self._bench.stop(process)


def _nothing(_: object) -> None:
    """Of no interest."""


def _worker(bench: Bench, host: Host, name: str) -> subprocess.Popen[bytes]:
    host.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
    host.run("ip", "addr", "add", f"{VIP}/32", "dev", "lo")
    small = "h" * 50
    server = (
        f'server {{ listen 80; location = /small {{ return 200 "{small}"; }} location / {{ root {bench.folder}; }} }}'
    )
    return bench.nginx(name, server, inside=host.inside())


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"


if __name__ == "__main__":
    main()
