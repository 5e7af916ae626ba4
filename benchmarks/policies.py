"""Balance policies on simulated back ends. ``python -m benchmarks.policies [--back-ends N] [--requests N] [--rst]``

The very classes that a node runs, in virtual time: three nodes that know nothing of each other send requests to a
thousand back ends, each of which works on one request at a time. Requests come at random (Poisson) and
would keep the back ends busy for 70 % of the time if they were spread evenly.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS
from lbarray.backends.connections import IdleConnections
from lbarray.backends.ejection import Ejector, EjectRules
from lbarray.backends.health import Health
from lbarray.backends.keys import key_reader
from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.pool import Member, Pool
from lbarray.http.events import RequestHead
from lbarray.plugin import IBalancePolicyMaker, PolicySettings, makers
from lbarray.values import BackendAddress, ClientAddress, Outcome

NODES = 3
BUSY = 0.7
MEAN_S = 0.01
CLIENTS = 10_000


@attrs.frozen
class Scenario:
    """How the simulated back ends behave.

    :ivar slow: part of them that is three times slower; :ivar long: part of the requests that takes ten times longer.
    :ivar failing: part of them that answers with an error at once, from a third of the time on.
    :ivar hot: part of the requests that are for one and the same URL.
    """

    name: str
    slow: float = 0.0
    long: float = 0.0
    failing: float = 0.0
    hot: float = 0.0


SCENARIOS = (
    Scenario("all alike"),
    Scenario("a tenth is three times slower", slow=0.1),
    Scenario("a twentieth of the requests takes ten times longer", long=0.05),
    Scenario("a twentieth fails at once", failing=0.05),
    Scenario("a tenth of the requests is for one URL", hot=0.1),
)

CASES: tuple[tuple[str, str, bool], ...] = (
    ("round-robin", "round-robin", False),
    ("random", "random", False),
    ("least-outstanding", "least-outstanding", False),
    ("peak-ewma", "peak-ewma", False),
    ("consistent-hash", "consistent-hash", False),
    ("least-outstanding, ejecting", "least-outstanding", True),
    ("peak-ewma, ejecting", "peak-ewma", True),
)


class Simulation:
    """One policy in one scenario.

    :ivar now: virtual seconds; :ivar latencies: of the requests that were answered.
    """

    def __init__(self, policy: str, scenario: Scenario, *, back_ends: int, eject: bool, seed: int = 1) -> None:
        self.now = 0.0
        self.latencies: list[float] = []
        self.failed = 0
        self.served = [0] * back_ends
        self._scenario = scenario
        self._chance = random.Random(seed)
        self._free_at = [0.0] * back_ends
        self._pools = [self._make_pool(policy, back_ends, eject, node) for node in range(NODES)]
        self._slow = int(scenario.slow * back_ends)
        self._failing = int(scenario.failing * back_ends)
        work = 1 + 2 * scenario.slow
        self._rate = BUSY * back_ends / (MEAN_S * (1 + 9 * scenario.long) * work)

    def _make_pool(self, policy: str, back_ends: int, eject: bool, node: int) -> Pool:
        settings = PolicySettings(seconds=lambda: self.now, chance=random.Random(node), seed=b"simulation")
        return Pool(
            name="simulated",
            members=[_member(place) for place in range(back_ends)],
            policy=makers(IBalancePolicyMaker)[policy].make(settings),
            ejector=Ejector(EjectRules(window_s=1.0)) if eject else None,
        )

    def run(self, requests: int) -> None:
        """Let them come; the first fifth is not counted, the back ends are still empty then."""
        ending: list[tuple[float, int, Pool, Member, float, bool]] = []
        chance, scenario = self._chance, self._scenario
        fails_from = requests / self._rate / 3
        arrival, tick = 0.0, 0.1
        for number in range(requests):
            arrival += chance.expovariate(self._rate)
            while ending and ending[0][0] <= arrival:
                self._end(heapq.heappop(ending), number > requests / 5)
            self.now = arrival
            if arrival > tick:
                tick += 0.1
                for pool in self._pools:
                    pool.tick(arrival)
            hot = scenario.hot and chance.random() < scenario.hot
            key = b"/hot" if hot else b"/item/%d" % chance.randrange(100_000)
            pool = self._pools[number % NODES]
            member = pool.choose((), key)
            assert member is not None
            pool.begin(member)
            place = member.address.port
            fails = place >= len(self.served) - self._failing and arrival > fails_from
            if fails:
                ends = arrival + 0.001
            else:
                taken = chance.expovariate(1 / MEAN_S)
                taken *= 3 if place < self._slow else 1
                taken *= 10 if scenario.long and chance.random() < scenario.long else 1
                ends = self._free_at[place] = max(arrival, self._free_at[place]) + taken
            heapq.heappush(ending, (ends, number, pool, member, arrival, fails))
        for entry in sorted(ending):
            self._end(entry, True)

    def _end(self, entry: tuple[float, int, Pool, Member, float, bool], counted: bool) -> None:
        ends, _, pool, member, began, failed = entry
        self.now = ends
        outcome = Outcome.SERVER_ERROR if failed else Outcome.ANSWERED
        if pool.end(member, outcome, ends - began, lambda: ends):
            pool.refresh()
        if counted:
            self.served[member.address.port] += 1
            self.failed += failed
            if not failed:
                self.latencies.append(ends - began)

    def row(self) -> dict[str, float]:
        """p50 and p99 in milliseconds, failures in percent, the busiest back end's requests by the mean."""
        cuts = statistics.quantiles(self.latencies, n=100)
        return {
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
            "failed_percent": 100 * self.failed / sum(self.served),
            "imbalance": max(self.served) / statistics.mean(self.served),
        }


def _member(place: int) -> Member:
    return Member(
        address=BackendAddress("simulated", f"w{place}", "192.0.2.1", place),
        weight=1,
        health=Health(),
        idle=IdleConnections(max_idle=0, idle_timeout_s=1.0),
    )


# Moved clients


def _keys() -> Iterator[tuple[bytes, ClientAddress]]:
    for number in range(CLIENTS):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        yield host.encode(), ClientAddress(host, 1)


def _where(pool: Pool, clients: list[tuple[bytes, ClientAddress]]) -> list[str]:
    found = []
    for key, client in clients:
        member: Any = None
        if pool.persistence is not None:
            member = pool.persistence.find(RequestHead(b"GET", b"/", []), client)[0]
        member = member or pool.choose((), key)
        found.append(member.address.name)
    return found


def moved(make: Callable[[], Pool], members: list[Member]) -> dict[str, float]:
    """Percent of the clients of back ends that stay which are elsewhere after one has gone, and after one has come."""
    clients = list(_keys())
    pool = make()
    before = _where(pool, clients)
    gone = members[len(members) // 2].address.name
    pool.remove(gone)
    after = _where(pool, clients)
    staying = [(then, now) for then, now in zip(before, after, strict=True) if then != gone]
    newcomer = _member(len(members))
    pool.add(newcomer)
    grown = _where(pool, clients)
    wandered = sum(now not in (then, newcomer.address.name) for then, now in zip(after, grown, strict=True))
    taken = grown.count(newcomer.address.name)
    return {
        "one_gone": 100 * sum(then != now for then, now in staying) / len(staying),
        "one_come": 100 * (wandered + taken) / len(clients),
    }


def _movers(back_ends: int) -> Iterator[tuple[str, dict[str, float]]]:
    for name in ("round-robin", "random", "least-outstanding", "peak-ewma", "consistent-hash", "persistence by hash"):
        members = [_member(place) for place in range(back_ends)]

        def make(name: str = name, members: list[Member] = members) -> Pool:
            policy = "round-robin" if name == "persistence by hash" else name
            settings = PolicySettings(seconds=lambda: 0.0, chance=random.Random(1), seed=b"simulation")
            groups = GroupPersistence(key_of=key_reader("client"), seed=b"simulation", seconds=lambda: 0.0)
            return Pool(
                name="simulated",
                members=members,
                policy=makers(IBalancePolicyMaker)[policy].make(settings),
                persistence=groups if name == "persistence by hash" else None,
            )

        yield name, moved(make, members)


# What is printed


def _rst(title: str, heads: list[str], rows: list[list[str]]) -> str:
    lines = [f".. csv-table:: {title}", f"   :header: {', '.join(heads)}", ""]
    return "\n".join(lines + ["   " + ", ".join(f'"{cell}"' for cell in row) for row in rows]) + "\n"


def _show(title: str, heads: list[str], rows: list[list[str]], rst: bool) -> None:
    if rst:
        print(_rst(title, heads, rows))
        return
    table = Table(title=title, title_justify="left")
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120, highlight=False).print(table)


def main(arguments: Sequence[str] = ()) -> None:
    """A table for each scenario, and one of moved clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--back-ends", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--rst", action="store_true", help="tables for the documentation")
    options = parser.parse_args(arguments)
    results: dict[str, Any] = {"back_ends": options.back_ends, "requests": options.requests}
    heads = ["policy", "p50 ms", "p99 ms", "failed %", "busiest ÷ mean"]
    for scenario in SCENARIOS:
        rows = []
        for title, policy, eject in CASES:
            if eject and not scenario.failing:
                continue
            simulation = Simulation(policy, scenario, back_ends=options.back_ends, eject=eject)
            simulation.run(options.requests)
            row = results.setdefault(scenario.name, {})[title] = simulation.row()
            cells = [f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.0f}", f"{row['failed_percent']:.1f}"]
            rows.append([title, *cells, f"{row['imbalance']:.2f}"])
        _show(scenario.name, heads, rows, options.rst)
    rows = []
    results["moved"] = {}
    few = min(options.back_ends, 20)
    for title, row in _movers(few):
        results["moved"][title] = row
        rows.append([title, f"{row['one_gone']:.1f}", f"{row['one_come']:.1f}"])
    for title in ("persistence by cookie", "persistence by learnt session"):
        rows.append([title, "0.0", "0.0"])
    heads = ["clients by", "one gone: % of the others moved", "one come: % of all moved"]
    _show(f"moved clients, {few} back ends", heads, rows, options.rst)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "policies.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
