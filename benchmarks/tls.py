"""TLS 1.3 connections that carry one request each, beside HAProxy and nginx: ``python -m benchmarks tls``

wrk takes sessions up again where it can, as browsers do: most of these handshakes are resumed ones.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.harness import Bench, Row, ratio_table
from benchmarks.http import PORTS, measure, prepare, start_contenders


def main() -> None:
    """Fifty octets per connection."""
    with Bench() as bench:
        prepare(bench)
        pids = start_contenders(bench)

        def contender(name: str) -> Callable[[], Row]:
            return lambda: measure(pids[name], f"https://127.0.0.1:{PORTS[name][1]}/small", "-H", "Connection: close")

        rows = bench.rounds({name: contender(name) for name in PORTS})
        ratio_table("tls", "a TLS connection per request", rows, against="haproxy", columns=["rps", "us"])


if __name__ == "__main__":
    main()
