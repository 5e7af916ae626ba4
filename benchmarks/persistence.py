"""How many clients move when a node dies. ``python -m benchmarks persistence``

Three nodes, three back ends, 10,000 clients of each kind of persistence (``BENCH_CLIENTS``). The scheduler's node is
killed while the last clients are still logging in; then everybody comes back.
"""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS
from lbarray.testbed.nodes import Array
from lbarray.testbed.persistent import KINDS, first_path, known_by, visits, with_pools
from lbarray.testbed.visitors import Visit, Welcome

CLIENTS = int(os.environ.get("BENCH_CLIENTS", "10000"))
#: Part of the clients that are still logging in when the node is killed.
LATE = 0.1
#: Seconds that these take, if nobody dies.
LOGIN_S = 1.5
#: Before the kill: what was learnt since then may not have been told.
LAST_S = 0.05


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


def _moved(before: list[Welcome], after: list[Welcome]) -> int:
    return sum(then.backend != now.backend for then, now in zip(before, after, strict=True))


def main() -> None:
    """A row for each kind, and one for those that logged in when the node died."""
    early, late = range(int(CLIENTS * (1 - LATE))), range(int(CLIENTS * (1 - LATE)), CLIENTS)
    table = Table(title=f"{CLIENTS:,} clients of each kind, the scheduler's node killed", title_justify="left")
    for head in ("persistence", "clients", "answered again", "moved"):
        table.add_column(head, justify="left" if head == "persistence" else "right")
    results: dict[str, Any] = {"clients": CLIENTS}
    with Array(edit=with_pools) as array:
        array.wait_ready()
        first = {kind: _first(array, kind, early) for kind in KINDS}
        last: list[Welcome] = []
        logging_in = threading.Thread(target=lambda: last.extend(_first(array, "learnt", late, len(late) / LOGIN_S)))
        owner = array.owner()
        logging_in.start()
        time.sleep(LOGIN_S * 0.7)
        killed = array.kill_node(owner)
        logging_in.join()
        rows: list[tuple[str, list[Welcome], list[Welcome]]] = [
            (kind, before, _again(array, kind, early, before)) for kind, before in first.items()
        ]
        after = _again(array, "learnt", late, last)
        pairs = list(zip(last, after, strict=True))
        here = [pair for pair in pairs if pair[0].node == owner]
        wanted = {
            "learnt by the others, meanwhile": [pair for pair in pairs if pair[0].node != owner],
            "learnt by the killed one, earlier": [pair for pair in here if pair[0].ended < killed - LAST_S],
            "learnt by it in its last 50 ms": [pair for pair in here if pair[0].ended >= killed - LAST_S],
        }
        rows += [(title, [then for then, _ in some], [now for _, now in some]) for title, some in wanted.items()]
    for title, before, again in rows:
        answered = sum(welcome.status == 200 for welcome in again)
        moved = _moved(before, again)
        results[title] = {"clients": len(before), "answered": answered, "moved": moved}
        table.add_row(title, f"{len(before):,}", f"{answered:,}", f"{moved:,}")
    Console(width=120, highlight=False).print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "persistence.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
