"""A worker beside HAProxy and nginx: keepalive requests, plain and TLS. ``python -m benchmarks http``"""

from __future__ import annotations

from collections.abc import Callable

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
  bind 127.0.0.1:{tls} ssl crt {folder}/both.pem ssl-min-ver TLSv1.3
  default_backend b
backend b
  server s1 127.0.0.1:8001 pool-max-conn 200
"""

_NGINX = """upstream u {{ server 127.0.0.1:8001; keepalive 128; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl;
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


def main() -> None:
    """Fifty octets and ten kilobytes, plain and over TLS 1.3."""
    with Bench() as bench:
        prepare(bench)
        pids = start_contenders(bench)
        for scheme, place in (("http", 0), ("https", 1)):
            for path in ("small", "10k"):
                urls = {name: f"{scheme}://127.0.0.1:{ports[place]}/{path}" for name, ports in PORTS.items()}
                rows = bench.rounds({name: _contender(pids[name], url) for name, url in urls.items()})
                ratio_table("http", f"{scheme}, {path}", rows, against="haproxy", columns=["rps", "us"])


def prepare(bench: Bench) -> None:
    """Certificate, content and back end.

    :raises RuntimeError: a port is taken.
    """
    bench.must_be_free(8001, 8099, *(port for pair in PORTS.values() for port in pair))
    certificate, key = write_certificate(bench.folder, "localhost", "127.0.0.1")
    (bench.folder / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    (bench.folder / "10k").write_bytes(b"x" * 10240)
    small = "h" * 50
    bench.nginx(
        "backend",
        f'server {{ listen 127.0.0.1:8001; location = /small {{ return 200 "{small}"; }} '
        f"location / {{ root {bench.folder}; }} }}",
    )
    bench.wait_port(8001)


def _contender(pid: int, url: str) -> Callable[[], Row]:
    return lambda: measure(pid, url)


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


def pids_of(name: str) -> list[int]:
    """Processes of this name."""
    import subprocess

    out = subprocess.run(["pgrep", "-x", name], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in out.split()]


def measure(pid: int, url: str, *options: str) -> Row:
    """Load, and ``us``: processor time of the contender per request."""
    before = cpu_of(pid)
    row = wrk(url, *options)
    row["us"] = (cpu_of(pid) - before) * 1e6 / max(1.0, row["requests"])
    return row


if __name__ == "__main__":
    main()
