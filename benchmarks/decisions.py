"""What one balancing decision costs. ``python -m benchmarks decisions``

For each policy and pool: the choice alone, and the choice with counting the request's beginning and end, as a node
does it. Medians of many short batches, with a few requests per member in hand all the time.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS, SECONDS
from lbarray.backends.connections import IdleConnections
from lbarray.backends.health import Health
from lbarray.backends.pool import Member, Pool
from lbarray.plugin import IBalancePolicyMaker, PolicySettings, makers
from lbarray.values import BackendAddress, Outcome

POLICIES = ("round-robin", "least-outstanding", "peak-ewma", "consistent-hash", "random")
SIZES = (10, 1000)
#: Microseconds that one choice may take (median), by size of the pool.
TARGETS = {10: 2.0, 1000: 4.0}
BATCH = 200


def make_pool(policy: str, size: int, weights: Callable[[int], int] = lambda place: 1) -> Pool:
    """A pool of so many members."""
    members = [
        Member(
            address=BackendAddress("bench", f"w{place}", "192.0.2.1", 80),
            weight=weights(place),
            health=Health(),
            idle=IdleConnections(max_idle=1, idle_timeout_s=1.0),
        )
        for place in range(size)
    ]
    settings = PolicySettings(seconds=time.monotonic, chance=random.Random(1), seed=b"benchmark")
    return Pool(name="bench", members=members, policy=makers(IBalancePolicyMaker)[policy].make(settings))


def _batches(step: Callable[[], None]) -> list[float]:
    taken = []
    until = time.perf_counter() + SECONDS / 4
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(BATCH):
            step()
        taken.append((time.perf_counter() - began) / BATCH * 1e6)
    return taken


def measure(policy: str, size: int, weights: Callable[[int], int] = lambda place: 1) -> dict[str, float]:
    """Microseconds: ``choice`` (with one begin and end in the same step taken off), and ``whole``."""
    pool = make_pool(policy, size, weights)
    keys = [b"/item/%d" % number for number in range(4096)]
    position = 0
    busy: deque[Any] = deque()

    def one(choose: Callable[[bytes], Any]) -> None:
        nonlocal position
        position = (position + 1) & 4095
        member = choose(keys[position])
        pool.begin(member)
        busy.append(member)
        pool.end(busy.popleft(), Outcome.ANSWERED, 0.001, time.monotonic())

    for _ in range(3 * size):
        member: Any = pool.choose((), keys[position])
        pool.begin(member)
        busy.append(member)
        position = (position + 1) & 4095
    members = list(pool.members.values())
    turn = 0

    def fixed(key: bytes) -> Any:
        nonlocal turn
        turn = (turn + 1) % size
        return members[turn]

    whole = statistics.median(_batches(lambda: one(lambda key: pool.choose((), key))))
    counting = statistics.median(_batches(lambda: one(fixed)))
    return {"choice": max(0.0, whole - counting), "whole": whole}


def main() -> None:
    """A row for each policy."""
    table = Table(title="one decision, microseconds (median)", title_justify="left")
    table.add_column("policy")
    for size in SIZES:
        table.add_column(f"{size} back ends", justify="right")
        table.add_column("with counting", justify="right")
    results: dict[str, dict[str, dict[str, float]]] = {}
    cases: list[tuple[str, str, Callable[[int], int]]] = [(name, name, lambda place: 1) for name in POLICIES]
    cases.append(("round-robin, weights 1 to 97", "round-robin", lambda place: 1 + place * 31 % 97))
    missed = []
    for title, name, weights in cases:
        cells = []
        for size in SIZES:
            row = measure(name, size, weights)
            results.setdefault(title, {})[str(size)] = row
            cells += [f"{row['choice']:.2f}", f"{row['whole']:.2f}"]
            if row["choice"] > TARGETS[size]:
                missed.append(f"{title} with {size} back ends")
        table.add_row(title, *cells)
    Console(width=120, highlight=False).print(table)
    targets = ", ".join(f"{size} back ends below {us:g}" for size, us in TARGETS.items())
    print(f"targets: {targets}; {'missed by ' + ', '.join(missed) if missed else 'all met'}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "decisions.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
