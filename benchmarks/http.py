"""A worker beside HAProxy, nginx and twisted.web: ``python -m benchmarks http``

Keepalive requests plain and over TLS 1.3, of fifty octets, ten kilobytes and a megabyte; HTTP/2 multiplexed; and what a
request takes when each is asked for half of what it can do.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.h2load import at_rate, multiplexed
from benchmarks.harness import CONTENDER_CPU, Bench, Row, cpu_of, ratio_table, wrk
from lbarray.testbed.certificates import write_certificate
from lbarray.testbed.nodes import twistd

_HAPROXY = """global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {folder}/both.pem ssl-min-ver TLSv1.3 alpn h2,http/1.1
  default_backend b
backend b
  server s1 127.0.0.1:8001 pool-max-conn 200
"""

_NGINX = """upstream u {{ server 127.0.0.1:8001; keepalive 128; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl http2;
  ssl_certificate {folder}/site.crt; ssl_certificate_key {folder}/site.key; ssl_protocols TLSv1.3;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr;
  location / {{ proxy_pass http://u; }} }}"""

_LBARRAY = """
[services.http]
address = "127.0.0.1"
port = {plain}
[services.https]
address = "127.0.0.1"
port = {tls}
tls = {{ certificate = "site.crt", key = "site.key" }}
[pools.web.backends]
s1 = {{ address = "127.0.0.1:8001" }}
[console]
status = "127.0.0.1:8099"
"""

#: Plain and TLS port of each contender.
PORTS = {"haproxy": (8110, 8111), "nginx": (8120, 8121), "lbarray": (8130, 8131)}
#: With twisted.web, which speaks no HTTP/2.
ALL_PORTS = {**PORTS, "twisted.web": (8140, 8141)}


#: Octets that are asked for by each path, and connections that ask.
SIZES = {"small": (50, 32), "10k": (10240, 32), "1m": (1 << 20, 8)}


def main() -> None:
    """Everything, from one run."""
    with Bench() as bench:
        prepare(bench)
        pids = start_contenders(bench)
        pids["twisted.web"] = start_twisted_web(bench)
        saturated = keepalive(bench, pids)
        http2(bench, pids)
        half(bench, saturated)


def keepalive(bench: Bench, pids: dict[str, int]) -> dict[str, float]:
    """Requests over connections that stay; the requests per second of small plain ones, by contender."""
    saturated: dict[str, float] = {}
    for scheme, place in (("http", 0), ("https", 1)):
        for path, (_, connections) in SIZES.items():
            urls = {name: f"{scheme}://127.0.0.1:{ports[place]}/{path}" for name, ports in ALL_PORTS.items()}
            rows = bench.rounds(
                {name: _contender(pids[name], url, connections=connections) for name, url in urls.items()}
            )
            ratio_table("http", f"{scheme}, {path}", rows, against="haproxy", columns=["rps", "us"])
            if (scheme, path) == ("http", "small"):
                saturated = {name: statistics.median(row["rps"] for row in each) for name, each in rows.items()}
    return saturated


def http2(bench: Bench, pids: dict[str, int]) -> None:
    """Eight connections of sixteen streams each, over TLS."""

    def contender(name: str) -> Callable[[], Row]:
        def run() -> Row:
            before = cpu_of(pids[name])
            row = multiplexed(f"https://127.0.0.1:{PORTS[name][1]}/small")
            row["us"] = (cpu_of(pids[name]) - before) * 1e6 / max(1.0, row["requests"])
            return row

        return run

    rows = bench.rounds({name: contender(name) for name in PORTS})
    ratio_table("http", "HTTP/2 over TLS, small, 8 x 16 streams", rows, against="haproxy", columns=["rps", "us"])


def half(bench: Bench, saturated: dict[str, float]) -> None:
    """What a request takes at half of what each can do, and at the same rate for all: half of what lbarray can."""
    for title, rates in (
        ("half of its own saturation", saturated),
        ("half of lbarray's saturation", dict.fromkeys(PORTS, saturated["lbarray"])),
    ):

        def contender(name: str, rate: float) -> Callable[[], Row]:
            return lambda: at_rate(f"http://127.0.0.1:{ALL_PORTS[name][0]}/small", rate / 2)

        rows = bench.rounds({name: contender(name, rate) for name, rate in rates.items()})
        ratio_table(
            "http", f"milliseconds, http, small, at {title}", rows, against="haproxy", columns=["p50", "p99", "rps"]
        )


def prepare(bench: Bench) -> None:
    """Certificate, content and back end.

    :raises RuntimeError: a port is taken.
    """
    bench.must_be_free(8001, 8099, *(port for pair in ALL_PORTS.values() for port in pair))
    certificate, key = write_certificate(bench.folder, "localhost", "127.0.0.1")
    (bench.folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    for path, (size, _) in SIZES.items():
        (bench.folder / path).write_bytes(b"x" * size)
    bench.folder.chmod(0o755)
    small = "h" * SIZES["small"][0]
    bench.nginx(
        "backend",
        f'server {{ listen 127.0.0.1:8001; location = /small {{ return 200 "{small}"; }} '
        f"location / {{ root {bench.folder}; }} }}",
    )
    bench.wait_port(8001)


def _contender(pid: int, url: str, *, connections: int = 32) -> Callable[[], Row]:
    return lambda: measure(pid, url, connections=connections)


def start_contenders(bench: Bench) -> dict[str, int]:
    """HAProxy, nginx and lbarray before the back end on port 8001; their process ids."""
    folder = bench.folder
    for name, text in (("haproxy.cfg", _HAPROXY), ("lbarray.toml", _LBARRAY)):
        plain, tls = PORTS[name.partition(".")[0]]
        (folder / name).write_text(text.format(folder=folder, plain=plain, tls=tls))
    plain, tls = PORTS["nginx"]
    before = set(pids_of("nginx"))
    bench.nginx("proxy", _NGINX.format(folder=folder, plain=plain, tls=tls), cpu=CONTENDER_CPU)
    haproxy = bench.start("haproxy", "-db", "-f", "haproxy.cfg", cpu=CONTENDER_CPU)
    node = bench.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", "lbarray.toml", cpu=CONTENDER_CPU)
    for ports in PORTS.values():
        for port in ports:
            bench.wait_port(port)
    nginx = next(iter(set(pids_of("nginx")) - before))
    return {"haproxy": haproxy.pid, "nginx": nginx, "lbarray": node.pid}


def start_twisted_web(bench: Bench) -> int:
    """ReverseProxyResource before the same back end; its process id."""
    plain, tls = (str(port) for port in ALL_PORTS["twisted.web"])
    script = Path(__file__).parent / "twisted_proxy.py"
    process = bench.start(
        sys.executable, "-P", str(script), plain, tls, "8001", "site.crt", "site.key", cpu=CONTENDER_CPU
    )
    bench.wait_port(int(plain))
    return process.pid


def pids_of(name: str) -> list[int]:
    """Processes of this name."""
    import subprocess

    out = subprocess.run(["pgrep", "-x", name], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in out.split()]


def measure(pid: int, url: str, *options: str, connections: int = 32) -> Row:
    """Load, and ``us``: processor time of the contender per request."""
    before = cpu_of(pid)
    row = wrk(url, *options, connections=connections)
    row["us"] = (cpu_of(pid) - before) * 1e6 / max(1.0, row["requests"])
    return row


if __name__ == "__main__":
    main()
