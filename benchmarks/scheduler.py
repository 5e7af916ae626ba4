"""The packet path beside others, in the same place. ``python -m benchmarks scheduler``

A client, a scheduler and workers (nginx) as namespaces on one switch, with one worker and with three. HAProxy and
nginx end connections and carry the answers; nftables and lbarray pass the clients' packets on, and the workers answer
directly.

There are two processors, and each contender is measured twice in each round:

* *alone*: the scheduler's node has processor 0, everything else processor 1, which is then the limit. ``ms/1000`` is
  what 1,000 requests take of processor 0: the scheduler's process, its system calls, and all that the kernel does for
  its packets, interrupts included (:mod:`benchmarks.soaker`).
* *array*: scheduler and workers share processor 0, client and switch have processor 1. ``requests/s`` is what one
  processor of an array can serve, whatever it spends on scheduling. ``array`` and ``client`` are the busy parts of both
  processors: the array is the limit where it is near 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import attrs

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

Stop = Callable[[], None]


@attrs.frozen
class Load:
    """What is asked. ``connections``: as many at a time."""

    name: str
    path: str
    connections: int
    options: tuple[str, ...] = ()
    octets: int = 0


LOADS = (
    Load("keepalive, 50 octets", "small", 48),
    Load("a connection per request", "small", 48, ("-H", "Connection: close")),
    Load("downloads of 1 MiB", "1m", 8, octets=MIB),
)


def main() -> None:
    """Small keepalive requests, one connection per request, and large downloads."""
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
        self._soaker = Soaker(bench)
        if not STREAM_MODULE.exists():
            print("nginx stream is left out: libnginx-mod-stream is not installed (tools/system-packages)")

    def compare(self, workers: dict[str, str]) -> None:
        """All contenders with these workers, in turns."""
        contenders: dict[str, Callable[[], Stop]] = {
            "haproxy tcp": lambda: self._haproxy(workers),
            "nginx stream": lambda: self._nginx(workers),
            "nftables fwd": lambda: self._nftables(workers),
            "lbarray tc": lambda: self._lbarray(workers, "tc"),
            "lbarray generic xdp": lambda: self._lbarray(workers, "xdp-generic"),
            "lbarray native xdp": lambda: self._native(workers),
            "lbarray packet": lambda: self._lbarray(workers, "packet"),
        }
        if not STREAM_MODULE.exists():
            del contenders["nginx stream"]
        rows: dict[str, dict[str, list[Row]]] = {load.name: {name: [] for name in contenders} for load in LOADS}
        for _ in range(ROUNDS):
            for name, start in contenders.items():
                stop = start()
                try:
                    self._await_answers()
                    self._arrange(LOAD_CPU)
                    self._soaker.calibrate()
                    alone = [self._measure_alone(load) for load in LOADS]
                    self._arrange(CONTENDER_CPU)
                    before = self._received(workers)
                    array = [self._measure(load) for load in LOADS]
                    self._all_worked(before, self._received(workers))
                except RuntimeError as error:
                    raise RuntimeError(f"{name}: {error}") from error
                finally:
                    stop()
                for load, one, other in zip(LOADS, alone, array, strict=True):
                    rows[load.name][name].append(_row(load, one, other))
        for load in LOADS:
            self._show(load, rows[load.name], len(workers))

    def _show(self, load: Load, measured: dict[str, list[Row]], workers: int) -> None:
        columns = ["MB/s" if load.octets else "requests/s", "array", "client", "ms/1000"]
        title = f"{load.name}, {workers} worker{'s' if workers > 1 else ''}"
        ratio_table("scheduler", title, measured, against="haproxy tcp", columns=columns)
        ours = [name for name in measured if name.startswith("lbarray") and name != "lbarray packet"]
        targets_table(
            "scheduler",
            f"{title}: targets",
            {name: measured[name] for name in ours},
            against=measured["haproxy tcp"],
            targets={columns[0]: FASTER, "ms/1000": 1 / CHEAPER},
        )

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

    def _measure_alone(self, load: Load) -> Row:
        self._soaker.resume()
        began, turns = time.monotonic(), self._soaker.turns
        row = self._measure(load)
        used = self._soaker.used(self._soaker.turns - turns, time.monotonic() - began)
        self._soaker.pause()
        return {**row, "used": used, "array": used / (time.monotonic() - began)}

    def _await_answers(self) -> None:
        """Until the contender answers: from every worker, where it does not choose by the client's port alone."""
        ask = ("curl", "-s", "-m", "1", "-o", "/dev/null", "-w", "%{http_code}", f"http://{VIP}/small")
        wait_for(lambda: self._client.run(*ask, check=False) == "200", "an answer", 10, 0.05)

    def _received(self, workers: dict[str, str]) -> dict[str, int]:
        """Packets that came in at each worker."""
        counter = "/sys/class/net/eth0/statistics/rx_packets"
        return {name: int(self._network.hosts[name].run("cat", counter)) for name in workers}

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


def _row(load: Load, alone: Row, array: Row) -> Row:
    """What is shown of both measurements."""
    return {
        "requests/s": array["rps"],
        "MB/s": array["rps"] * load.octets / 1e6,
        "array": array["array"],
        "client": array["client"],
        "ms/1000": alone["used"] * 1e6 / max(1.0, alone["requests"]),
        "requests/s alone": alone["rps"],
        "busy alone": alone["array"],
    }


if __name__ == "__main__":
    main()
