"""Rewriting a page of 100 kB, beside nginx's sub_filter: ``python -m benchmarks rewrite``

Both proxy the same page and both turn its 150 references to static content into the CDN's; sub_filter replaces octets
wherever they stand, the rewriter knows HTML. ``plain`` is the same proxy without rewriting.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.harness import CONTENDER_CPU, Bench, Row, ratio_table
from benchmarks.http import measure, pids_of
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.testbed.nodes import twistd

PORTS = {"nginx plain": 8140, "nginx sub_filter": 8141, "lbarray plain": 8150, "lbarray rewriting": 8151}

_LBARRAY = """
[services.http]
address = "127.0.0.1"
port = {port}
[pools.web.backends]
s1 = {{ address = "127.0.0.1:8001" }}
[console]
status = "127.0.0.1:{status}"
"""
_CDN = '[cdn]\nhost = "cdn.example"\npaths = ["/static/"]\n'


def page() -> bytes:
    """About 100 kB of products, each with an image, a link and some words."""
    item = (
        '<div class="item" id="p{0}"><a href="/shop/p{0}.html">'
        '<img src="/static/p{0}.jpg" alt="Product {0}" width="160">'
        "</a><h2>Product {0}</h2><p>{1}</p></div>\n"
    )
    words = "Sturdy, simple and made to last; delivered within three days. " * 8
    items = "".join(item.format(number, words) for number in range(150))
    head = '<!DOCTYPE html><html><head><meta charset="utf-8"><title>Shop</title>'
    return f"{head}</head><body>\n{items}</body></html>\n".encode()


def main() -> None:
    """As proxies, then the rewriter alone in this process."""
    with Bench() as bench:
        bench.must_be_free(8001, *PORTS.values())
        (bench.folder / "page.html").write_bytes(page())
        (bench.folder / "types").write_text("types { text/html html; }\n")
        bench.nginx(
            "backend", f"include {bench.folder}/types; server {{ listen 127.0.0.1:8001; root {bench.folder}; }}"
        )
        bench.wait_port(8001)
        pids: dict[str, int] = {}
        for name, more in (("nginx plain", ""), ("nginx sub_filter", _sub_filter())):
            before = set(pids_of("nginx"))
            server = _nginx(PORTS[name], more)
            bench.nginx(name.replace(" ", "-"), server, cpu=CONTENDER_CPU)
            bench.wait_port(PORTS[name])
            pids[name] = next(iter(set(pids_of("nginx")) - before))
        for name, more in (("lbarray plain", ""), ("lbarray rewriting", _CDN)):
            port = PORTS[name]
            config = bench.folder / f"{port}.toml"
            config.write_text(_LBARRAY.format(port=port, status=port + 100) + more)
            node = bench.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(config), cpu=CONTENDER_CPU)
            bench.wait_port(port)
            pids[name] = node.pid

        def contender(name: str) -> Callable[[], Row]:
            return lambda: measure(pids[name], f"http://127.0.0.1:{PORTS[name]}/page.html")

        rows = bench.rounds({name: contender(name) for name in PORTS})
        ratio_table("rewrite", "a page of 100 kB, proxied", rows, against="nginx sub_filter", columns=["rps", "us"])
        alone = bench.rounds({"rewriter": _alone, "bytes.replace": _replace})
        ratio_table("rewrite", "in process", alone, against="bytes.replace", columns=["mb_per_s"])


def _sub_filter() -> str:
    return "sub_filter 'src=\"/static/' 'src=\"https://cdn.example/static/'; sub_filter_once off;"


def _nginx(port: int, more: str) -> str:
    return (
        f"upstream u{port} {{ server 127.0.0.1:8001; keepalive 128; }} server {{ listen 127.0.0.1:{port}; "
        f'location / {{ proxy_pass http://u{port}; proxy_http_version 1.1; proxy_set_header Connection ""; {more} }} }}'
    )


def _rate(work: Callable[[bytes], object]) -> Row:
    html = page()
    began = time.perf_counter()
    count = 0
    while time.perf_counter() - began < 1.0:
        work(html)
        count += 1
    return {"mb_per_s": count * len(html) / (time.perf_counter() - began) / 1e6}


def _alone() -> Row:
    rules = CdnRules(hosts=["cdn.example"], scheme="https", paths=["/static/"])
    return _rate(lambda html: HtmlRewriter(rules, Page(b"site.example", b"/")).feed(html))


def _replace() -> Row:
    return _rate(lambda html: html.replace(b'src="/static/', b'src="https://cdn.example/static/'))


if __name__ == "__main__":
    main()
