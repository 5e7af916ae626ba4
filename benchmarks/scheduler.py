"""The packet path beside HAProxy in TCP mode, in the same place. ``python -m benchmarks scheduler``

A client, a scheduler and three workers (nginx) as namespaces on one switch. The scheduler's receiving work is
steered to processor 0, everything else to processor 1; ``us`` is processor 0's time per request.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from benchmarks.harness import CONTENDER_CPU, LOAD_CPU, Bench, Row, idle_s, ratio_table, wrk
from lbarray.testbed.namespaces import Host, Network

VIP = "10.78.0.100"
WORKERS = {f"w{number}": f"10.78.0.{10 + number}" for number in (1, 2, 3)}


def main() -> None:
    """Small keepalive requests, one connection per request, and large downloads."""
    with Network() as network, Bench() as bench:
        client = network.add("client", "10.78.0.1/24")
        scheduler = network.add("scheduler", "10.78.0.2/24", f"{VIP}/24")
        network.steer("client", host_cpu=LOAD_CPU, port_cpu=LOAD_CPU)
        network.steer("scheduler", host_cpu=CONTENDER_CPU, port_cpu=LOAD_CPU)
        (bench.folder / "1m").write_bytes(b"x" * (1 << 20))
        for name, address in WORKERS.items():
            _worker(bench, network.add(name, f"{address}/24"), name)
            network.steer(name, host_cpu=LOAD_CPU, port_cpu=LOAD_CPU)
        contenders = {
            "haproxy tcp": lambda: _haproxy(bench, scheduler),
            "lbarray": lambda: _lbarray(bench, network, scheduler),
        }
        loads: dict[str, Callable[[], Row]] = {
            "keepalive, 50 octets": lambda: _measure(client, "small", 48),
            "a connection per request": lambda: _measure(client, "small", 48, "-H", "Connection: close"),
            "downloads of 1 MiB": lambda: _measure(client, "1m", 8),
        }
        rows: dict[str, dict[str, list[Row]]] = {load: {name: [] for name in contenders} for load in loads}
        for _ in range(3):
            for name, start in contenders.items():
                stop = start()
                for load, measure in loads.items():
                    rows[load][name].append(measure())
                stop()
        for load, measured in rows.items():
            ratio_table("scheduler", load, measured, against="haproxy tcp", columns=["rps", "us"])


def _worker(bench: Bench, host: Host, name: str) -> None:
    host.run("sysctl", "-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
    host.run("ip", "addr", "add", f"{VIP}/32", "dev", "lo")
    small = "h" * 50
    server = (
        f'server {{ listen 80; location = /small {{ return 200 "{small}"; }} location / {{ root {bench.folder}; }} }}'
    )
    bench.nginx(name, server, inside=host.inside())


def _haproxy(bench: Bench, scheduler: Host) -> Callable[[], None]:
    servers = "".join(f"  server {name} {address}:80\n" for name, address in WORKERS.items())
    (bench.folder / "haproxy.cfg").write_text(
        "global\n  nbthread 1\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n"
        f"  timeout server 30s\nfrontend f\n  bind {VIP}:80\n  default_backend b\nbackend b\n{servers}"
    )
    process = bench.start("haproxy", "-db", "-f", "haproxy.cfg", cpu=CONTENDER_CPU, inside=scheduler.inside())
    time.sleep(1.0)
    return lambda: bench.stop(process)


def _lbarray(bench: Bench, network: Network, scheduler: Host) -> Callable[[], None]:
    wanted = {
        "folder": str(bench.folder),
        "vip": VIP,
        "workers": {name: (address, network.hosts[name].mac()) for name, address in WORKERS.items()},
    }
    process = bench.start(
        sys.executable,
        "-m",
        "benchmarks.static_scheduler",
        json.dumps(wanted),
        cpu=CONTENDER_CPU,
        inside=["env", f"PYTHONPATH={_root()}", *scheduler.inside()],
    )
    time.sleep(2.0)
    if process.poll() is not None:
        raise RuntimeError(f"the scheduler has ended\n{bench.logs()}")
    return lambda: bench.stop(process)


def _root() -> str:
    from pathlib import Path

    return str(Path(__file__).resolve().parent.parent)


def _measure(client: Host, path: str, connections: int, *options: str) -> Row:
    began, idle = time.monotonic(), idle_s()
    row = wrk(f"http://{VIP}/{path}", *options, connections=connections, inside=client.inside())
    busy = time.monotonic() - began - (idle_s() - idle)
    row["us"] = max(0.0, busy) * 1e6 / max(1.0, row["requests"])
    return row


if __name__ == "__main__":
    main()
