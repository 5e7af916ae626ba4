"""TLS beside HAProxy, nginx and Twisted's own proxy: ``python -m benchmarks tls``

Handshakes full (ECDSA, RSA-2048) and resumed, counted by processor time; keepalive requests; bodies of 10 kB and 1 MB,
plain and over TLS; memory of idle connections; two worker processes against one. Every contender on one processor
(but the two processes), all in one run. ``BENCH_IDLE`` connections are held, 10,000 unless it is set or the
system allows fewer descriptors.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import CONTENDER_CPU, LOAD_CPU, SECONDS, Bench, Row, cpu_of, ratio_table, wrk
from lbarray.kernel.descriptors import raise_descriptor_limit
from lbarray.testbed.authority import Authority
from lbarray.testbed.nodes import twistd

#: HAProxy wants two descriptors for each connection that it may have.
_MAX_CONNECTIONS = (raise_descriptor_limit() - 200) // 2
IDLE = min(int(os.environ.get("BENCH_IDLE", "10000")), _MAX_CONNECTIONS - 100)
#: Plain, ECDSA and RSA port of each contender.
PORTS = {
    "haproxy": (8210, 8211, 8212),
    "nginx": (8220, 8221, 8222),
    "lbarray": (8230, 8231, 8232),
    "twisted.web": (8240, 8241, 8242),
}
#: Where lbarray must be, by table: column, against whom, and the ratio. Of ``us``, theirs divided by ours.
TARGETS = {
    "full handshakes, ECDSA P-256": ("us", "haproxy", 0.60),
    "full handshakes, RSA-2048": ("us", "haproxy", 0.60),
    "resumed handshakes": ("us", "haproxy", 0.50),
    "keepalive, 50 octets, plain": ("rps", "haproxy", 0.30),
    "keepalive, 50 octets, TLS 1.3": ("rps", "haproxy", 0.24),
    "keepalive, 1 MB, plain": ("rps", "haproxy", 0.80),
    "keepalive, 1 MB, TLS 1.3": ("rps", "haproxy", 0.80),
    "keepalive, 50 octets, plain, twisted.web": ("rps", "twisted.web", 7.0),
    "keepalive, 50 octets, TLS 1.3, twisted.web": ("rps", "twisted.web", 7.0),
}
IDLE_KB = 60.0
TWO_PORTS = (8250, 8251, 8252)
_HANDSHAKES = Path(__file__).with_name("handshakes.c")

_HAPROXY = """global
  nbthread 1
  maxconn {most}
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 30s
  http-reuse always
  option forwardfor
frontend f
  bind 127.0.0.1:{0}
  bind 127.0.0.1:{1} ssl crt {folder}/site.pem
  bind 127.0.0.1:{2} ssl crt {folder}/rsa.pem
  default_backend b
backend b
  server s1 127.0.0.1:8001 pool-max-conn 200
"""
_NGINX = """upstream u {{ server 127.0.0.1:8001; keepalive 128; keepalive_requests 100000000; }}
ssl_session_cache shared:s:10m; keepalive_timeout 120s; proxy_max_temp_file_size 0;
server {{ listen 127.0.0.1:{0}; location / {{ {proxy} }} }}
server {{ listen 127.0.0.1:{1} ssl; ssl_certificate {folder}/site.crt; ssl_certificate_key {folder}/site.key;
  ssl_protocols TLSv1.2 TLSv1.3; location / {{ {proxy} }} }}
server {{ listen 127.0.0.1:{2} ssl; ssl_certificate {folder}/rsa.crt; ssl_certificate_key {folder}/rsa.key;
  ssl_protocols TLSv1.2 TLSv1.3; location / {{ {proxy} }} }}"""
_PROXY = (
    'proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection ""; '
    "proxy_set_header X-Forwarded-For $remote_addr;"
)
_LBARRAY = """
[array]
state_dir = "{folder}/{0}"
[worker]
keepalive_timeout = "120s"
processes = {processes}
[services.http]
address = "127.0.0.1"
port = {0}
[services.https]
address = "127.0.0.1"
port = {1}
hash = "connection"
tls = {{ certificate = "site.crt", key = "site.key" }}
[services.rsa]
address = "127.0.0.1"
port = {2}
tls = {{ certificate = "rsa.crt", key = "rsa.key" }}
[pools.web.backends]
s1 = {{ address = "127.0.0.1:8001" }}
[console]
status = "127.0.0.1:{status}"
"""


class Contender:
    """One proxy under test. ``processes``: gives its process ids now."""

    def __init__(self, ports: tuple[int, int, int], processes: Callable[[], list[int]]) -> None:
        self.ports = ports
        self.processes = processes

    def cpu_s(self) -> float:
        """Seconds of processor time used so far."""
        return sum(cpu_of(pid) for pid in self.processes())

    def resident(self) -> int:
        """Octets of resident memory."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.processes())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def wrk(self, place: int, path: str, connections: int = 32) -> Row:
        """Keepalive requests; ``us``: processor time of each."""
        before = self.cpu_s()
        scheme = "https" if place else "http"
        row = wrk(f"{scheme}://127.0.0.1:{self.ports[place]}{path}", connections=connections)
        row["us"] = (self.cpu_s() - before) * 1e6 / max(1.0, row["requests"])
        return row

    def shake(self, program: str, place: int, how: str) -> Row:
        """Connections with one request each; ``us``: processor time of each.

        :raises RuntimeError: some failed, or were not what they should be.
        """
        before = self.cpu_s()
        command = ["taskset", "-c", str(LOAD_CPU), program, str(self.ports[place]), "load", f"{SECONDS:g}", "8", how]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        done, resumed, failed = (int(word) for word in out.split())
        wanted = done - 8 if how == "resume" else 0
        if failed or not done or resumed < wanted or (how == "full" and resumed):
            raise RuntimeError(f"{done} connections, {resumed} resumed, {failed} failed at port {self.ports[place]}")
        return {"connections": float(done), "rps": done / SECONDS, "us": (self.cpu_s() - before) * 1e6 / done}

    def idle(self, program: str, count: int) -> Row:
        """Memory for each of many connections that have asked once and wait.

        :raises RuntimeError: they could not all be opened.
        """
        before = self.resident()
        with subprocess.Popen(
            ["taskset", "-c", str(LOAD_CPU), program, str(self.ports[1]), "idle", str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as clients:
            assert clients.stdin is not None and clients.stdout is not None
            said = clients.stdout.readline().split()
            after = self.resident()
            clients.stdin.close()
        if said != ["open", str(count)]:
            raise RuntimeError(f"{' '.join(said)} of {count} at port {self.ports[1]}")
        return {"kB": (after - before) / count / 1000.0}


def main() -> None:
    """Everything, in one run."""
    with Bench() as bench:
        program = _prepare(bench)
        contenders = _start(bench)
        measured: dict[str, dict[str, list[Row]]] = {}
        for title, place, how in (
            ("full handshakes, ECDSA P-256", 1, "full"),
            ("full handshakes, RSA-2048", 2, "full"),
            ("resumed handshakes", 1, "resume"),
        ):
            measured[title] = _table(
                bench,
                title,
                contenders,
                lambda it, place=place, how=how: it.shake(program, place, how),  # type: ignore[misc]
            )
        for title, place, path, connections in (
            ("keepalive, 50 octets, plain", 0, "/small", 32),
            ("keepalive, 50 octets, TLS 1.3", 1, "/small", 32),
            ("keepalive, 10 kB, plain", 0, "/10k", 32),
            ("keepalive, 10 kB, TLS 1.3", 1, "/10k", 32),
            ("keepalive, 1 MB, plain", 0, "/1m", 8),
            ("keepalive, 1 MB, TLS 1.3", 1, "/1m", 8),
        ):
            measured[title] = _table(
                bench,
                title,
                contenders,
                lambda it, place=place, path=path, connections=connections: it.wrk(place, path, connections),  # type: ignore[misc]
            )
        idle = {name: [it.idle(program, IDLE)] for name, it in contenders.items()}
        ratio_table("tls", f"memory of each of {IDLE:,} idle TLS connections", idle, against="haproxy", columns=["kB"])
        _targets(measured, idle["lbarray"][0]["kB"])
        two = {"one process": contenders["lbarray"], "two processes": _two(bench)}
        for title, place in (("plain", 0), ("TLS 1.3", 1)):
            rows = bench.rounds({name: _wrk(it, place) for name, it in two.items()})
            ratio_table(
                "tls", f"worker processes, 50 octets, {title}", rows, against="one process", columns=["rps", "us"]
            )


def _table(
    bench: Bench, title: str, contenders: dict[str, Contender], measure: Callable[[Contender], Row]
) -> dict[str, list[Row]]:
    rows = bench.rounds({name: (lambda it=it: measure(it)) for name, it in contenders.items()})  # type: ignore[misc]
    ratio_table("tls", title, rows, against="haproxy", columns=["rps", "us"])
    return rows


def _targets(measured: dict[str, dict[str, list[Row]]], idle_kb: float) -> None:
    """Print where lbarray is beside where it must be."""
    table = Table(title="lbarray beside its targets", title_justify="left")
    for head in ("", "measured", "target", ""):
        table.add_column(head, justify="left" if not head else "right")
    for title, (column, against, least) in TARGETS.items():
        rows = measured[title.removesuffix(", twisted.web")]
        ours, theirs = (statistics.median(row[column] for row in rows[name]) for name in ("lbarray", against))
        ratio = theirs / ours if column == "us" else ours / theirs
        said = f"{title.removesuffix(', twisted.web')}: {column} beside {against}"
        table.add_row(said, f"{ratio:.2f}", f"{least:.2f}", "met" if ratio >= least else "missed")
    met = "met" if idle_kb < IDLE_KB else "missed"
    table.add_row("memory of an idle TLS connection, kB", f"{idle_kb:.1f}", f"under {IDLE_KB:.0f}", met)
    Console(width=150, highlight=False).print(table)


def _wrk(it: Contender, place: int) -> Callable[[], Row]:
    return lambda: it.wrk(place, "/small", 64)


def _prepare(bench: Bench) -> str:
    """Certificates, content, back end and the program of the clients."""
    bench.must_be_free(8001, 8299, 8298, *TWO_PORTS, *(port for ports in PORTS.values() for port in ports))
    authority = Authority(bench.folder)
    for stem, kind in (("site", "ecdsa"), ("rsa", "rsa")):
        certificate, key = authority.issue(stem, "localhost", "127.0.0.1", kind=kind)
        (bench.folder / f"{stem}.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    (bench.folder / "10k").write_bytes(b"x" * 10240)
    (bench.folder / "1m").write_bytes(os.urandom(1 << 20))
    small = "h" * 50
    bench.nginx(
        "backend",
        f'server {{ listen 127.0.0.1:8001; location = /small {{ return 200 "{small}"; }} '
        f"location / {{ root {bench.folder}; }} }}",
    )
    bench.wait_port(8001)
    program = str(bench.folder / "handshakes")
    subprocess.run(["cc", "-O2", "-o", program, str(_HANDSHAKES), "-lssl", "-lcrypto"], check=True)
    return program


def _start(bench: Bench) -> dict[str, Contender]:
    folder = bench.folder
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(*PORTS["haproxy"], folder=folder, most=_MAX_CONNECTIONS))
    haproxy = bench.start("haproxy", "-db", "-f", "haproxy.cfg", cpu=CONTENDER_CPU)
    nginx = _nginx(bench)
    lbarray = _lbarray(bench, PORTS["lbarray"], processes=0, status=8299, cpu=str(CONTENDER_CPU))
    root = str(Path(__file__).resolve().parent.parent)
    web = bench.start(
        sys.executable, "-m", "benchmarks.reverse_proxy", str(folder), *map(str, PORTS["twisted.web"]),
        cpu=CONTENDER_CPU, inside=["env", f"PYTHONPATH={root}"],
    )  # fmt: skip
    for ports in PORTS.values():
        for port in ports:
            bench.wait_port(port)
    return {
        "haproxy": Contender(PORTS["haproxy"], lambda: [haproxy.pid]),
        "nginx": Contender(PORTS["nginx"], lambda: [nginx]),
        "lbarray": Contender(PORTS["lbarray"], lambda: [lbarray]),
        "twisted.web": Contender(PORTS["twisted.web"], lambda: [web.pid]),
    }


def _nginx(bench: Bench) -> int:
    before = set(_pids("nginx"))
    bench.nginx("proxy", _NGINX.format(*PORTS["nginx"], folder=bench.folder, proxy=_PROXY), cpu=CONTENDER_CPU)
    bench.wait_port(PORTS["nginx"][0])
    return next(iter(set(_pids("nginx")) - before))


def _pids(name: str) -> list[int]:
    out = subprocess.run(["pgrep", "-x", name], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in out.split()]


def _lbarray(bench: Bench, ports: tuple[int, int, int], *, processes: int, status: int, cpu: str) -> int:
    config = bench.folder / f"lbarray-{ports[0]}.toml"
    config.write_text(_LBARRAY.format(*ports, folder=bench.folder, processes=processes, status=status))
    return bench.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(config), cpu=cpu).pid


def _two(bench: Bench) -> Contender:
    """A node with two worker processes, on both processors."""
    node = _lbarray(bench, TWO_PORTS, processes=2, status=8298, cpu=f"{CONTENDER_CPU},{LOAD_CPU}")
    for port in TWO_PORTS:
        bench.wait_port(port)
    time.sleep(3.0)

    def processes() -> list[int]:
        children = Path(f"/proc/{node}/task/{node}/children").read_text().split()
        return [node, *map(int, children)]

    return Contender(TWO_PORTS, processes)


if __name__ == "__main__":
    main()
