"""What finding a route costs, by the number of routes. ``python -m benchmarks routes``

Hosts, prefixes of paths, regular expressions, all of them mixed; requests for every route in turn. Thousands of
routes are to cost no more than tens: the last column is the ratio of the largest table to the one of tens.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, SECONDS
from lbarray.backends.routes import FieldTest, Match, RouteTable
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

SIZES = (10, 30, 100, 1000, 5000)
CLIENT = ClientAddress("192.0.2.7", 4000)
Made = tuple[Match, bytes, bytes]


def _host(number: int) -> Made:
    return Match(host=f"site{number}.example.net"), b"site%d.example.net" % number, b"/a/b"


def _wildcard(number: int) -> Made:
    return Match(host=f"*.site{number}.example.net"), b"www.site%d.example.net" % number, b"/a/b"


def _prefix(number: int) -> Made:
    path = f"/area{number % 71}/part{number}"
    return Match(path=path), b"a.example", path.encode() + b"/page?x=1"


def _regex(number: int) -> Made:
    return Match(regex=rf"^/item{number}/\d+\.html$"), b"a.example", b"/item%d/12345.html" % number


def _mixed(number: int) -> Made:
    match, host, target = (_host, _wildcard, _prefix, _regex)[number % 4](number)
    if number % 8 == 0:
        match = Match(host=match.host, methods=("GET",), headers=(FieldTest("user-agent", "~Mozilla"),))
    return match, host, target


KINDS: dict[str, Callable[[int], Made]] = {
    "exact hosts": _host,
    "wildcard hosts": _wildcard,
    "prefixes of paths": _prefix,
    "regular expressions": _regex,
    "all of them mixed": _mixed,
}


def measure(kind: Callable[[int], Made], size: int) -> float:
    """Microseconds per look-up, median of batches."""
    made = [kind(number) for number in range(size)]
    table = RouteTable((match, number) for number, (match, _, _) in enumerate(made))
    fields = [(b"Host", b"x"), (b"User-Agent", b"Mozilla/5.0"), (b"Accept", b"*/*")]
    asked = [(RequestHead(b"GET", target, fields, host=host), number) for number, (_, host, target) in enumerate(made)]
    for request, number in asked:
        if table.find(request, CLIENT) != number:
            raise AssertionError(f"{request!r} does not find its route {number}")
    # The same number of different requests for every size: what is measured is the table, not the caches.
    requests = [random.Random(number).choice(asked)[0] for number in range(2000)]
    taken = []
    until = time.perf_counter() + SECONDS / 4
    while time.perf_counter() < until:
        began = time.perf_counter()
        for request in requests:
            table.find(request, CLIENT)
        taken.append((time.perf_counter() - began) / len(requests) * 1e6)
    return statistics.median(taken)


def main() -> None:
    """A row for each kind of route."""
    table = Table(title="finding a route, microseconds (median)", title_justify="left")
    table.add_column("routes of")
    for size in SIZES:
        table.add_column(f"{size:,}", justify="right")
    table.add_column(f"{SIZES[-1]:,} ÷ {SIZES[1]}", justify="right")
    results: dict[str, dict[str, float]] = {}
    for name, kind in KINDS.items():
        row = {size: measure(kind, size) for size in SIZES}
        results[name] = {str(size): value for size, value in row.items()}
        ratio = row[SIZES[-1]] / row[SIZES[1]]
        table.add_row(name, *(f"{row[size]:.2f}" for size in SIZES), f"{ratio:.2f}")
    Console(width=120, highlight=False).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "routes.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
