"""Rewriting pages, beside nginx's sub_filter: ``python -m benchmarks rewrite``

Both proxy the same pages and both turn their references to static content into the CDN's; sub_filter replaces octets
wherever they stand, the rewriter knows HTML. ``plain`` is the same proxy without rewriting; ``every page new`` is
lbarray without its memo of results, ``pages repeat`` with it. Then the rewriter alone, beside other ways in Python.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bs4 import BeautifulSoup

from benchmarks.harness import CONTENDER_CPU, LOAD_CPU, Bench, Row, ratio_table
from benchmarks.http import measure, pids_of
from benchmarks.pages import manual, shop
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.testbed.nodes import twistd

PORTS = {
    "nginx plain": 8140,
    "nginx sub_filter": 8141,
    "lbarray plain": 8150,
    "lbarray, every page new": 8151,
    "lbarray, pages repeat": 8152,
}
#: Products on a page of 10 kB, 100 kB and 1 MB.
SIZES = {"10 kB": 16, "100 kB": 150, "1 MB": 1560}
FIRST_BYTES = 150

_LBARRAY = """
[services.http]
address = "127.0.0.1"
port = {port}
[pools.web.backends]
s1 = {{ address = "127.0.0.1:8001" }}
[console]
status = "127.0.0.1:{status}"
"""
_CDN = '[cdn]\nhost = "cdn.example"\npaths = ["/static/"]\nmemo = {memo}\n'
_MORE = {
    "lbarray plain": "",
    "lbarray, every page new": _CDN.format(memo=0),
    "lbarray, pages repeat": _CDN.format(memo=32 << 20),
}
_SUB_FILTER = "sub_filter 'src=\"/static/' 'src=\"https://cdn.example/static/'; sub_filter_once off;"
_AGAINST = "nginx sub_filter"


def main() -> None:
    """As proxies, then the rewriter alone in this process."""
    with Bench() as bench:
        bench.must_be_free(8001, *PORTS.values())
        pids = _start(bench)
        for size in SIZES:
            for coding in ("plain", "gzip"):
                _proxied(bench, pids, size, coding)
        rows = bench.rounds({name: _first_byte_of(name) for name in PORTS})
        ratio_table("rewrite", "first octet of a page of 1 MB", rows, against="nginx plain", columns=["ttfb_us"])
        memory = {name: [{"peak_mb": _peak_mb(pid)}] for name, pid in pids.items()}
        ratio_table("rewrite", "memory after all of this", memory, against="nginx plain", columns=["peak_mb"])
        for title, page in (("100 kB, 150 references", shop(150)), ("a manual of 1.5 MB", manual())):
            ways = _ways(page)
            alone = bench.rounds({name: _rate_of(work, page) for name, work in ways.items()})
            ratio_table("rewrite", f"in process: {title}", alone, against="rewriter", columns=["mb_per_s"])


def _start(bench: Bench) -> dict[str, int]:
    for size, products in SIZES.items():
        (bench.folder / f"{size.replace(' ', '')}.html").write_bytes(shop(products))
    (bench.folder / "types").write_text("types { text/html html; }\n")
    bench.nginx(
        "backend",
        f"include {bench.folder}/types; gzip on; gzip_proxied any; "
        f"server {{ listen 127.0.0.1:8001; root {bench.folder}; }}",
    )
    bench.wait_port(8001)
    pids: dict[str, int] = {}
    for name, more in (("nginx plain", ""), ("nginx sub_filter", _SUB_FILTER)):
        before = set(pids_of("nginx"))
        bench.nginx(name.replace(" ", "-"), _nginx(PORTS[name], more), cpu=CONTENDER_CPU)
        bench.wait_port(PORTS[name])
        pids[name] = next(iter(set(pids_of("nginx")) - before))
    for name, more in _MORE.items():
        port = PORTS[name]
        config = bench.folder / f"{port}.toml"
        config.write_text(_LBARRAY.format(port=port, status=port + 100) + more)
        node = bench.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(config), cpu=CONTENDER_CPU)
        bench.wait_port(port)
        pids[name] = node.pid
    return pids


def _nginx(port: int, more: str) -> str:
    # sub_filter does nothing in coded pages: they are asked for uncoded, and coded behind it as lbarray does.
    coded = 'proxy_set_header Accept-Encoding ""; gzip on; gzip_proxied any; gzip_comp_level 4;' if more else ""
    return (
        f"upstream u{port} {{ server 127.0.0.1:8001; keepalive 128; }} server {{ listen 127.0.0.1:{port}; "
        f'location / {{ proxy_pass http://u{port}; proxy_http_version 1.1; proxy_set_header Connection ""; '
        f"{coded} {more} }} }}"
    )


def _url(name: str, size: str) -> str:
    return f"http://127.0.0.1:{PORTS[name]}/{size.replace(' ', '')}.html"


def _proxied(bench: Bench, pids: dict[str, int], size: str, coding: str) -> None:
    options = ("-H", "Accept-Encoding: gzip") if coding == "gzip" else ()
    octets = len(shop(SIZES[size]))

    def contender(name: str) -> Callable[[], Row]:
        def once() -> Row:
            row = measure(pids[name], _url(name, size), *options)
            row["mb_per_s"] = row["rps"] * octets / 1e6
            return row

        return once

    rows = bench.rounds({name: contender(name) for name in PORTS})
    ratio_table("rewrite", f"{size}, {coding}", rows, against=_AGAINST, columns=["rps", "us", "mb_per_s"])


def _first_byte_of(name: str) -> Callable[[], Row]:
    """Median time from the request to the first octet of content, each over a connection of its own."""
    request = f"GET /1MB.html HTTP/1.1\r\nHost: 127.0.0.1:{PORTS[name]}\r\nConnection: close\r\n\r\n".encode()

    def once() -> Row:
        os.sched_setaffinity(0, {LOAD_CPU})
        times = []
        for _ in range(FIRST_BYTES):
            with socket.create_connection(("127.0.0.1", PORTS[name])) as connection:
                began = time.perf_counter()
                connection.sendall(request)
                got = b""
                while not got.partition(b"\r\n\r\n")[2]:
                    got += connection.recv(65536)
                times.append(time.perf_counter() - began)
                while connection.recv(1 << 20):
                    pass
        return {"ttfb_us": statistics.median(times) * 1e6}

    return once


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _ways(page: bytes) -> dict[str, Callable[[], object]]:
    """The same page, rewritten in several ways."""
    rules = CdnRules(hosts=["cdn.example"], paths=["/static/"])
    text = page.decode()

    def rewriter() -> bytes:
        work = HtmlRewriter(rules, Page(b"site.example", b"/"))
        out = b"".join(work.feed(page[at : at + 65536]) for at in range(0, len(page), 65536))
        return out + work.finish()

    def soup() -> str:
        tree = BeautifulSoup(text, "html.parser")
        for element in tree.find_all(src=True):
            if str(element["src"]).startswith("/static/"):
                element["src"] = f"https://cdn.example{element['src']}"
        return str(tree)

    def tokens() -> int:
        from turbohtml import Tokenizer

        return sum(1 for _ in Tokenizer().feed(text))

    def lxml() -> bytes:
        import lxml.html as parser

        tree = parser.document_fromstring(text)
        for element in tree.xpath('//*[starts-with(@src, "/static/")]'):
            element.set("src", f"https://cdn.example{element.get('src')}")
        whole: bytes = parser.tostring(tree)
        return whole

    ways: dict[str, Callable[[], object]] = {
        "rewriter": rewriter,
        "turbohtml, its tokens only": tokens,
        "BeautifulSoup": soup,
        "bytes.replace": lambda: page.replace(b'src="/static/', b'src="https://cdn.example/static/'),
    }
    try:
        lxml()
        ways["lxml.html"] = lxml
    except ImportError:
        print("lxml is not installed: left out")
    return ways


def _rate_of(work: Callable[[], object], page: bytes) -> Callable[[], Row]:
    def once() -> Row:
        os.sched_setaffinity(0, {CONTENDER_CPU})
        began = time.perf_counter()
        count = 0
        while time.perf_counter() - began < 0.7 or not count:
            work()
            count += 1
        return {"mb_per_s": count * len(page) / (time.perf_counter() - began) / 1e6}

    return once


if __name__ == "__main__":
    main()
