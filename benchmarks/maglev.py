"""The Maglev table beside the paper's figures (Eisenbud et al., NSDI 2016, §5.3): ``python -m benchmarks maglev``

Nothing but this process is measured: how long a table takes to build, how even it is, and how many rows change hands
between workers that stay when others come, go, or change their weight.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from array import array
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS
from lbarray.scheduler import maglev
from lbarray.scheduler.maglev import Weighted, build_table

SMALL, LARGE = 65537, 655373
ROUNDS = 5
#: §5.3: milliseconds to generate a table for 1,000 backends, and how much Karger's ring and rendezvous hashing must be
#: provisioned over the mean for the busiest backend.
PAPER_BUILD_MS = {SMALL: "1.8", LARGE: "22.9"}
PAPER_RING = {SMALL: 29.7, LARGE: 10.3}
PAPER_RENDEZVOUS = {SMALL: 49.5, LARGE: 12.3}


def _workers(count: int) -> list[Weighted]:
    return [Weighted(f"worker-{number}") for number in range(count)]


def _with_weight(worker: Weighted, weight: int) -> Weighted:
    return Weighted(worker.name, weight)


def _owners(workers: Sequence[Weighted], size: int) -> list[str]:
    ranked = sorted(worker.name for worker in workers)
    return [ranked[place] for place in build_table(workers, size)]


def _build_ms(count: int, size: int) -> float:
    workers = _workers(count)
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        build_table(workers, size)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def _python_ms(count: int, size: int) -> float:
    numbers = [int.from_bytes(hashlib.blake2b(b"%d" % place, digest_size=4).digest(), "big") for place in range(count)]
    taken = []
    for _ in range(ROUNDS):
        rows = array("H", bytes(2 * size))
        began = time.perf_counter()
        maglev.fill(
            array("I", [number % size for number in numbers]),
            array("I", [number % (size - 1) + 1 for number in numbers]),
            array("I", [100] * count),
            rows,
        )
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1000


def _over_mean(counts: Sequence[float]) -> float:
    """How much the busiest has above the mean, in percent."""
    return (max(counts) / statistics.fmean(counts) - 1) * 100


def _ring(count: int, size: int) -> float:
    """Karger's ring with as many points as the table has rows: what the busiest has above the mean."""
    points = sorted(
        (int.from_bytes(hashlib.blake2b(b"%d %d" % (worker, copy), digest_size=8).digest(), "big"), worker)
        for worker in range(count)
        for copy in range(size // count)
    )
    places = [place for place, _ in points]
    share = [0.0] * count
    for at, (place, worker) in enumerate(points):
        share[worker] += place - (places[at - 1] if at else places[-1] - 2**64)
    return _over_mean(share)


def _moved(before: Sequence[Weighted], after: Sequence[Weighted], size: int) -> tuple[float, float]:
    """Percent of all rows: that changed hands, and that had to."""
    old, new = _owners(before, size), _owners(after, size)
    changed = sum(was != now for was, now in zip(old, new, strict=True))
    old_count, new_count = Counter(old), Counter(new)
    needed = sum(max(0, old_count[name] - new_count[name]) for name in old_count)
    return changed / size * 100, needed / size * 100


def main() -> None:
    """Build time, balance and disruption."""
    results: dict[str, object] = {"compiled": maglev.compiled}
    console = Console(width=150, highlight=False)

    table = Table(title="building a Maglev table, milliseconds", title_justify="left")
    for head in ("workers", "rows", "compiled" if maglev.compiled else "no compiler here", "in Python", "the paper"):
        table.add_column(head, justify="right")
    build = {}
    for count, size in ((100, SMALL), (1000, SMALL), (100, LARGE), (1000, LARGE)):
        fast, slow = _build_ms(count, size), _python_ms(count, size)
        build[f"{count} workers, {size} rows"] = {"compiled_ms": fast, "python_ms": slow}
        paper = PAPER_BUILD_MS[size] if count == 1000 else ""
        table.add_row(str(count), str(size), f"{fast:.2f}", f"{slow:.1f}", paper)
    console.print(table)
    results["build"] = build

    table = Table(title="balance of 1,000 workers: percent of rows above the mean", title_justify="left")
    for head in ("rows", "Maglev", "ring, as many points", "the paper: ring", "the paper: rendezvous"):
        table.add_column(head, justify="right")
    balance = {}
    for size in (SMALL, LARGE):
        ours = _over_mean(list(Counter(build_table(_workers(1000), size)).values()))
        ring = _ring(1000, size)
        balance[str(size)] = {"maglev": ours, "ring": ring}
        table.add_row(str(size), f"{ours:.2f}", f"{ring:.1f}", f"{PAPER_RING[size]}", f"{PAPER_RENDEZVOUS[size]}")
    console.print(table)
    results["balance"] = balance

    table = Table(title="disruption: percent of all rows that change hands", title_justify="left")
    for head in ("change", "rows", "had to", "moved", "besides"):
        table.add_column(head, justify="left" if head == "change" else "right")
    disruption = {}
    thousand, hundred, ten = _workers(1000), _workers(100), _workers(10)
    changes = {
        "1 of 1,000 leaves": (thousand, thousand[1:]),
        "10 of 1,000 leave": (thousand, thousand[10:]),
        "1 of 100 leaves": (hundred, hundred[1:]),
        "1 of 10 leaves": (ten, ten[1:]),
        "an 11th comes": (ten, [*ten, Weighted("new")]),
        "an 11th comes slowly": (ten, [*ten, Weighted("new", 10)]),
        "1 of 10: weight 100 to 90": (ten, [_with_weight(ten[0], 90), *ten[1:]]),
        "1 of 100: weight 100 to 90": (hundred, [_with_weight(hundred[0], 90), *hundred[1:]]),
    }
    for name, (before, after) in changes.items():
        for size in (SMALL, LARGE):
            moved, needed = _moved(before, after, size)
            disruption[f"{name}, {size} rows"] = {"moved": moved, "needed": needed}
            table.add_row(name, str(size), f"{needed:.2f}", f"{moved:.2f}", f"{moved - needed:.2f}")
    console.print(table)
    results["disruption"] = disruption
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "maglev.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
