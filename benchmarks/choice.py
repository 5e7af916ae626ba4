"""New connections by their rows alone, and to the less loaded of two workers, simulated.

``python -m benchmarks choice``. Clients come and go at random; workers say once a second what they bear, half a
second late. *Busiest ÷ mean* is the load of the busiest worker against the mean, over the second half of the time;
*worst* the largest of it; *elsewhere* the part of connections that are not where their row is. What decides is
``lbarray.scheduler.choice``; *not counted* leaves out what was given since the last report.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import deque
from ipaddress import IPv4Address

import attrs

from benchmarks.harness import Row, single_table
from lbarray.scheduler.choice import Burdens, costs
from lbarray.scheduler.maglev import Weighted
from lbarray.values import Load, NodeReport

ADDRESS = IPv4Address("192.0.2.1")
REPORT_S, LATE_S, LOOK_S = 1.0, 0.5, 0.05


@attrs.frozen
class Case:
    """What happens. ``weights``: of the workers; ``stuck``: connections of the first one that never end."""

    name: str
    weights: tuple[int, ...]
    per_s: float
    life_s: float
    stuck: int = 0


CASES = (
    Case("4 workers, connections of 0.3 s", (100,) * 4, 1000, 0.3),
    Case("4 workers, of 2 s", (100,) * 4, 500, 2.0),
    Case("4 workers, of 30 s", (100,) * 4, 100, 30.0),
    Case("4 workers of weights 1, 1, 2 and 4", (50, 50, 100, 200), 500, 2.0),
    Case("16 workers, of 2 s", (100,) * 16, 2000, 2.0),
    Case("4 workers, of 2 s, one with 500 that stay", (100,) * 4, 500, 2.0, stuck=500),
)
WAYS = {"rows alone": (False, False), "less loaded, not counted": (True, False), "less loaded": (True, True)}


def main() -> None:
    """One table."""
    rows = {f"{case.name}: {way}": [_run(case, *how)] for case in CASES for way, how in WAYS.items()}
    single_table("choice", "least loaded of two", rows)


def _run(case: Case, choose: bool, counted: bool) -> Row:
    chance = random.Random(20261125)
    places = range(len(case.weights))
    workers = [Weighted(str(place), weight) for place, weight in enumerate(case.weights)]
    index = {worker.name: place for place, worker in enumerate(workers)}
    burdens = Burdens()
    held = [case.stuck if place == 0 else 0 for place in places]
    past: deque[tuple[float, list[int]]] = deque()
    ends: list[tuple[float, int]] = []
    busiest: list[float] = []
    duration = 10 * max(2.0, case.life_s)
    now = looked = told = 0.0
    elsewhere = count = 0
    while now < duration:
        now += chance.expovariate(case.per_s)
        while ends and ends[0][0] <= now:
            held[heapq.heappop(ends)[1]] -= 1
        while looked <= now:
            past.append((looked, held[:]))
            looked += LOOK_S
        while told <= now:
            while len(past) > 1 and past[1][0] <= told - LATE_S:
                past.popleft()
            said = [NodeReport(str(place), ADDRESS, load=Load(connections=past[0][1][place])) for place in places]
            burdens.set(costs(workers, said, index))
            told += REPORT_S
        owner, other = chance.choices(places, case.weights, k=2)
        got = other if choose and other != owner and burdens.is_lighter(other, owner) else owner
        if counted:
            burdens.give(got)
        elsewhere += got != owner
        count += 1
        held[got] += 1
        heapq.heappush(ends, (now + chance.expovariate(1 / case.life_s), got))
        if now > duration / 2:
            loads = [connections / weight for connections, weight in zip(held, case.weights, strict=True)]
            busiest.append(max(loads) / statistics.fmean(loads))
    return {"busiest ÷ mean": statistics.fmean(busiest), "worst": max(busiest), "elsewhere": elsewhere / count}


if __name__ == "__main__":
    main()
