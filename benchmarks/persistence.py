"""How many clients move when a node dies, whichever it is. ``python -m benchmarks persistence``

Three nodes, three back ends, 10,000 clients of each kind of persistence (``BENCH_CLIENTS``; a fifth as many with TLS
sessions). The scheduler's node is killed while the last clients are still logging in; then everybody comes back. The
dead node returns, and the next one is killed, until each of them has died once.

``--rst`` prints the table of the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS
from lbarray.testbed.nodes import SITE, VIP, Array, wait_for
from lbarray.testbed.persistent import KINDS, first_path, known_by, visits, with_pools
from lbarray.testbed.resumption import Found, Resumption
from lbarray.testbed.visitors import Visit, Welcome

CLIENTS = int(os.environ.get("BENCH_CLIENTS", "10000"))
#: Part of the clients that are still logging in when the first node is killed.
LATE = 0.1
#: Seconds that these take, if nobody dies.
LOGIN_S = 1.5
#: Before the kill: what was learnt since then may not have been told.
LAST_S = 0.05
HEADS = ("persistence", "killed", "clients", "answered again", "moved")
Row = tuple[str, str, int, int, int]


def _first(array: Array, kind: str, numbers: range, rate: float = 0.0) -> list[Welcome]:
    them = visits(*(Visit(first_path(kind), known_by(kind, number)) for number in numbers), rate=rate)
    return array.visit(them, timeout_s=300.0)


def _again(array: Array, kind: str, numbers: range, before: list[Welcome]) -> list[Welcome]:
    them = visits(
        *(
            Visit(f"/{kind}/small", known_by(kind, number, welcome))
            for number, welcome in zip(numbers, before, strict=True)
        )
    )
    return array.visit(them, timeout_s=300.0)


def _row(title: str, killed: str, before: Sequence[Welcome], after: Sequence[Welcome]) -> Row:
    answered = sum(welcome.status == 200 for welcome in after)
    moved = sum(then.backend != now.backend for then, now in zip(before, after, strict=True))
    return title, killed, len(before), answered, moved


def _start_wanderers(array: Array, out: list[Found]) -> tuple[Path, threading.Thread]:
    """Clients by TLS session, who come back from other addresses: the first visits are over, the file lets them."""
    gate = array.folder / "gate"
    clients = Resumption(
        host=VIP,
        port=443,
        name=SITE,
        authority=str(array.folder / "site.crt"),
        sessions=max(20, CLIENTS // 5),
        path="/tls/small",
        gate=str(gate),
        wander=True,
    )
    running = threading.Thread(target=lambda: out.append(clients.run_in(array.client)))
    running.start()
    wait_for(lambda: Path(f"{gate}.first").exists(), "the first visits over TLS", 300)
    return gate, running


def _while_logging_in(array: Array, late: range) -> tuple[list[Row], str]:
    """Kill the scheduler's node while clients log in; what became of them, and which node that was."""
    last: list[Welcome] = []
    logging_in = threading.Thread(target=lambda: last.extend(_first(array, "learnt", late, len(late) / LOGIN_S)))
    owner = array.owner()
    logging_in.start()
    time.sleep(LOGIN_S * 0.7)
    killed = array.kill_node(owner)
    logging_in.join()
    pairs = list(zip(last, _again(array, "learnt", late, last), strict=True))
    here = [pair for pair in pairs if pair[0].node == owner]
    wanted = {
        "learnt, by the other nodes while it died": [pair for pair in pairs if pair[0].node != owner],
        "learnt, by the killed node until 50 ms before": [pair for pair in here if pair[0].ended < killed - LAST_S],
        "learnt, by the killed node in its last 50 ms": [pair for pair in here if pair[0].ended >= killed - LAST_S],
    }
    return [
        _row(title, "scheduler", [then for then, _ in some], [now for _, now in some]) for title, some in wanted.items()
    ], owner


def measure() -> list[Row]:
    """A row for each kind and each death, and for those that logged in when the first node died."""
    early, late = range(int(CLIENTS * (1 - LATE))), range(int(CLIENTS * (1 - LATE)), CLIENTS)
    rows: list[Row] = []
    wanderers: list[Found] = []
    with Array(edit=with_pools) as array:
        array.wait_ready()
        first = {kind: _first(array, kind, early) for kind in KINDS}
        gate, running = _start_wanderers(array, wanderers)
        special, owner = _while_logging_in(array, late)
        rows += [_row(kind, "scheduler", before, _again(array, kind, early, before)) for kind, before in first.items()]
        gate.touch()
        running.join()
        found = wanderers[0]
        rows.append(("tls, from another address", "scheduler", max(20, CLIENTS // 5), _answered(found), found.moved))
        rows += special
        for name in [name for name in array.nodes if name != owner]:
            array.start_node(owner)
            array.wait_ready()
            time.sleep(4.0)  # the returned node is sent what was learnt
            which = "scheduler" if array.owner() == name else "worker"
            array.kill_node(name)
            rows += [
                _row(kind, f"{which}, later", before, _again(array, kind, early, before))
                for kind, before in first.items()
            ]
            owner = name
    return rows


def _answered(found: Found) -> int:
    return max(20, CLIENTS // 5) - found.failed


def main(arguments: Sequence[str] = ()) -> None:
    """Print and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rst", action="store_true", help="the table for the documentation")
    options = parser.parse_args(arguments)
    rows = measure()
    title = f"{CLIENTS:,} clients of each kind, and every node killed once"
    if options.rst:
        print(f".. csv-table:: {title}\n   :header: {', '.join(HEADS)}\n")
        for row in rows:
            print("   " + ", ".join(f'"{cell:,}"' if isinstance(cell, int) else f'"{cell}"' for cell in row))
    else:
        table = Table(title=title, title_justify="left")
        for place, head in enumerate(HEADS):
            table.add_column(head, justify="left" if place < 2 else "right")
        for kind, killed, *numbers in rows:
            table.add_row(kind, killed, *(f"{number:,}" for number in numbers))
        Console(width=120, highlight=False).print(table)
    results = [dict(zip(("kind", "killed", "clients", "answered", "moved"), row, strict=True)) for row in rows]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "persistence.json").write_text(json.dumps({"clients": CLIENTS, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
