"""What finding a route costs, by the number of routes. ``python -m benchmarks routes``

Hosts, prefixes of paths, regular expressions, conditions, all of them mixed; requests for all routes, at random. The
steps of a look-up do not depend on the number of routes; what remains in the last column is the memory that a large
table touches: a small one stays in the processor's caches, and when others work on the machine a large one never does.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Callable
from ipaddress import ip_network

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, SECONDS
from lbarray.backends.matching import FieldTest, Match
from lbarray.backends.routes import RouteTable
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

SIZES = (10, 30, 100, 1000, 5000)
CLIENT = ClientAddress("192.0.2.7", 4000)
FIELDS = [(b"Host", b"x"), (b"User-Agent", b"Mozilla/5.0"), (b"Accept", b"*/*")]


@attrs.frozen
class Asked:
    """What a request must have to get a route."""

    host: bytes = b"a.example"
    target: bytes = b"/a/b"
    field: bytes = b"none"
    client: ClientAddress = CLIENT

    def request(self) -> RequestHead:
        """One of its own, as in life: otherwise small tables would be asked by few, which stay in the caches."""
        fields = [*FIELDS, (b"X-Tenant", bytes(bytearray(self.field)))]
        return RequestHead(b"GET", bytes(bytearray(self.target)), fields, host=bytes(bytearray(self.host)))


Made = tuple[Match, Asked]


def _host(number: int) -> Made:
    return Match(host=f"site{number}.example.net"), Asked(host=b"site%d.example.net" % number)


def _wildcard(number: int) -> Made:
    return Match(host=f"*.site{number}.example.net"), Asked(host=b"www.site%d.example.net" % number)


def _prefix(number: int) -> Made:
    path = f"/area{number % 71}/part{number}"
    return Match(path=path), Asked(target=path.encode() + b"/page?x=1")


def _regex(number: int) -> Made:
    return Match(regex=rf"^/item{number}/\d+\.html$"), Asked(target=b"/item%d/12345.html" % number)


def _field(number: int) -> Made:
    return Match(headers=(FieldTest("X-Tenant", f"t{number}"),)), Asked(field=b"t%d" % number)


def _network(number: int) -> Made:
    place = f"10.{number >> 8}.{number & 255}"
    return Match(networks=(ip_network(f"{place}.0/24"),)), Asked(client=ClientAddress(f"{place}.9", 4000))


def _mixed(number: int) -> Made:
    match, asked = (_host, _wildcard, _prefix, _regex, _field, _network)[number % 6](number)
    if number % 12 == 0:
        match = Match(host=match.host, methods=("GET",), headers=(FieldTest("user-agent", "~Mozilla"),))
    return match, asked


KINDS: dict[str, Callable[[int], Made]] = {
    "exact hosts": _host,
    "wildcard hosts": _wildcard,
    "prefixes of paths": _prefix,
    "regular expressions": _regex,
    "values of a field": _field,
    "client networks": _network,
    "all of them mixed": _mixed,
}


def _asker(kind: Callable[[int], Made], size: int) -> Callable[[], float]:
    """Makes a table of so many routes; each call gives the microseconds per look-up of one batch."""
    made = [kind(number) for number in range(size)]
    table = RouteTable((match, number) for number, (match, _) in enumerate(made))
    for number, (_, asked) in enumerate(made):
        if table.find(asked.request(), asked.client) != number:
            raise AssertionError(f"{asked!r} does not find its route {number}")
    chosen = [random.Random(number).choice(made)[1] for number in range(2000)]
    requests = [(asked.request(), asked.client) for asked in chosen]

    def batch() -> float:
        began = time.perf_counter()
        for request, client in requests:
            table.find(request, client)
        return (time.perf_counter() - began) / len(requests) * 1e6

    return batch


def measure(kind: Callable[[int], Made]) -> dict[int, float]:
    """Microseconds per look-up by size.

    Batches take turns, so that all meet the same machine, and the quickest tenth of them counts: a look-up is pure
    computation, and what makes it longer at times is somebody else's work.
    """
    askers = {size: _asker(kind, size) for size in SIZES}
    taken: dict[int, list[float]] = {size: [] for size in SIZES}
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        for size, batch in askers.items():
            taken[size].append(batch())
    return {size: statistics.quantiles(times, n=10)[0] for size, times in taken.items()}


def main() -> None:
    """A row for each kind of route."""
    table = Table(title="finding a route, microseconds", title_justify="left")
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
