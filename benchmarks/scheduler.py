"""The packet path beside others, in the same place. ``python -m benchmarks scheduler``

A client, a scheduler and workers (nginx) as namespaces on one switch, with one worker and with three. The scheduler's
receiving work is steered to processor 0, everything else to processor 1; ``us`` is processor 0's time per request.
HAProxy and nginx end connections and carry the answers; nftables and lbarray pass the clients' packets on, and the
workers answer directly.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import CONTENDER_CPU, LOAD_CPU, ROUNDS, Bench, Row, idle_s, ratio_table, wrk
from lbarray.bpf.build import compile_program
from lbarray.testbed.namespaces import Host, Network

VIP = "10.78.0.100"
WORKERS = {f"w{number}": f"10.78.0.{10 + number}" for number in (1, 2, 3)}
MIB = 1 << 20
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")

Stop = Callable[[], None]


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
        for name, address in WORKERS.items():
            _worker(bench, network.add(name, f"{address}/24"), name)
            network.steer(name, host_cpu=LOAD_CPU, port_cpu=LOAD_CPU)

    def compare(self, workers: dict[str, str]) -> None:
        """All contenders with these workers, in turns."""
        contenders: dict[str, Callable[[], Stop]] = {
            "haproxy tcp": lambda: self._haproxy(workers),
            "nftables fwd": lambda: self._nftables(workers),
            "lbarray tc": lambda: self._lbarray(workers, "tc"),
            "lbarray generic xdp": lambda: self._lbarray(workers, "xdp-generic"),
            "lbarray native xdp": lambda: self._native(workers),
            "lbarray packet": lambda: self._lbarray(workers, "packet"),
        }
        if STREAM_MODULE.exists():
            contenders["nginx stream"] = lambda: self._nginx(workers)
        loads: dict[str, Callable[[], Row]] = {
            "keepalive, 50 octets": lambda: _measure(self._client, "small", 48),
            "a connection per request": lambda: _measure(self._client, "small", 48, "-H", "Connection: close"),
            "downloads of 1 MiB": lambda: _measure(self._client, "1m", 8),
        }
        rows: dict[str, dict[str, list[Row]]] = {load: {name: [] for name in contenders} for load in loads}
        for _ in range(ROUNDS):
            for name, start in contenders.items():
                stop = start()
                try:
                    for load, measure in loads.items():
                        rows[load][name].append(measure())
                except RuntimeError as error:
                    raise RuntimeError(f"{name}, {load}: {error}") from error
                finally:
                    stop()
        for load, measured in rows.items():
            columns = ["rps", "us", *(["MB/s"] if "MiB" in load else [])]
            for row in (row for each in measured.values() for row in each):
                row["MB/s"] = row["rps"] * MIB / 1e6
            title = f"{load}, {len(workers)} worker{'s' if len(workers) > 1 else ''}"
            ratio_table("scheduler", title, measured, against="haproxy tcp", columns=columns)

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
        time.sleep(2.0)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} has ended\n{self._bench.logs()}")
        return lambda: self._bench.stop(process)


def _nothing(_: object) -> None:
    """Of no interest."""


def _worker(bench: Bench, host: Host, name: str) -> None:
    host.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
    host.run("ip", "addr", "add", f"{VIP}/32", "dev", "lo")
    small = "h" * 50
    server = (
        f'server {{ listen 80; location = /small {{ return 200 "{small}"; }} location / {{ root {bench.folder}; }} }}'
    )
    bench.nginx(name, server, inside=host.inside())


def _measure(client: Host, path: str, connections: int, *options: str) -> Row:
    began, idle = time.monotonic(), idle_s()
    row = wrk(f"http://{VIP}/{path}", *options, connections=connections, inside=client.inside())
    busy = time.monotonic() - began - (idle_s() - idle)
    row["us"] = max(0.0, busy) * 1e6 / max(1.0, row["requests"])
    return row


if __name__ == "__main__":
    main()
