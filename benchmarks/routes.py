"""What finding a route costs, by the number of routes. ``python -m benchmarks routes``

Hosts, prefixes of paths, regular expressions, all of them mixed; requests for all routes, at random. The steps of a
look-up do not depend on the number of routes; what remains in the last column is the memory that a large table touches.
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


def _asker(kind: Callable[[int], Made], size: int) -> Callable[[], float]:
    """Makes a table of so many routes; each call gives the microseconds per look-up of one batch."""
    made = [kind(number) for number in range(size)]
    table = RouteTable((match, number) for number, (match, _, _) in enumerate(made))
    fields = [(b"Host", b"x"), (b"User-Agent", b"Mozilla/5.0"), (b"Accept", b"*/*")]
    asked = [(RequestHead(b"GET", target, fields, host=host), number) for number, (_, host, target) in enumerate(made)]
    for request, number in asked:
        if table.find(request, CLIENT) != number:
            raise AssertionError(f"{request!r} does not find its route {number}")
    chosen = [random.Random(number).choice(made) for number in range(2000)]
    # Each a request of its own, as in life: otherwise small tables would be asked by few, which stay in the caches.
    requests = [
        RequestHead(b"GET", bytes(bytearray(target)), fields, host=bytes(bytearray(host))) for _, host, target in chosen
    ]

    def batch() -> float:
        began = time.perf_counter()
        for request in requests:
            table.find(request, CLIENT)
        return (time.perf_counter() - began) / len(requests) * 1e6

    return batch


def measure(kind: Callable[[int], Made]) -> dict[int, float]:
    """Microseconds per look-up by size: medians of batches that take turns, so that all meet the same machine."""
    askers = {size: _asker(kind, size) for size in SIZES}
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        for size, batch in askers.items():
            taken[size].append(batch())
    return {size: statistics.median(times) for size, times in taken.items()}


def main() -> None:
    """A row for each kind of route."""
    table = Table(title="finding a route, microseconds (median)", title_justify="left")
    table.add_column("routes of")
    for size in SIZES:
        table.add_column(f"{size:,}", justify="right")
    table.add_column(f"{SIZES[-1]:,} ÷ {SIZES[1]}", justify="right")
    results: dict[str, dict[str, float]] = {}
    for name, kind in KINDS.items():
        row = measure(kind)
        results[name] = {str(size): value for size, value in row.items()}
        ratio = row[SIZES[-1]] / row[SIZES[1]]
        table.add_row(name, *(f"{row[size]:.2f}" for size in SIZES), f"{ratio:.2f}")
    Console(width=120, highlight=False).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "routes.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
