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
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
from rich.console import Console
from rich.table import Table

from benchmarks.harness import RESULTS
from lbarray.backends.connections import IdleConnections
from lbarray.backends.ejection import Ejector, EjectRules
from lbarray.backends.health import Health
from lbarray.backends.keys import key_reader
from lbarray.backends.persistence.cookie import CookiePersistence
from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.persistence.learnt import LearntPersistence, SessionTable
from lbarray.backends.pool import Member, Pool, PoolLimits
from lbarray.http.events import RequestHead, ResponseHead
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
    :ivar joining: part of them that come when a third of the time is over, and are cold: their first requests take five
        times longer.
    """

    name: str
    slow: float = 0.0
    long: float = 0.0
    failing: float = 0.0
    hot: float = 0.0
    joining: float = 0.0


SCENARIOS = (
    Scenario("all alike"),
    Scenario("a tenth is three times slower", slow=0.1),
    Scenario("a twentieth of the requests takes ten times longer", long=0.05),
    Scenario("a twentieth fails at once", failing=0.05),
    Scenario("a tenth of the requests is for one URL", hot=0.1),
    Scenario("a tenth joins, cold", joining=0.1),
)
#: Requests after which a back end that has joined is warm, and how much longer they take.
COLD, COLDER = 10, 5
SLOW_START_S = 0.3


@attrs.frozen
class Case:
    """A policy as it is configured; ``eject`` and ``slow_start`` are shown where they make a difference."""

    policy: str
    eject: bool = False
    slow_start: bool = False

    def __str__(self) -> str:
        return self.policy + (", ejecting" if self.eject else "") + (", slow start" if self.slow_start else "")

    def concerns(self, scenario: Scenario) -> bool:
        """It differs there from the policy alone."""
        return (not self.eject or scenario.failing > 0) and (not self.slow_start or scenario.joining > 0)


CASES = (
    Case("round-robin"),
    Case("random"),
    Case("least-outstanding"),
    Case("peak-ewma"),
    Case("consistent-hash"),
    Case("least-outstanding", eject=True),
    Case("peak-ewma", eject=True),
    Case("round-robin", slow_start=True),
    Case("least-outstanding", slow_start=True),
    Case("peak-ewma", slow_start=True),
)


class Simulation:
    """One policy in one scenario.

    :ivar now: virtual seconds; :ivar latencies: of the requests that were answered.
    """

    def __init__(self, case: Case, scenario: Scenario, *, back_ends: int, seed: int = 1) -> None:
        self.now = 0.0
        self.latencies: list[float] = []
        self.failed = 0
        self.served = [0] * back_ends
        self._scenario = scenario
        self._chance = random.Random(seed)
        self._free_at = [0.0] * back_ends
        self._joining = range(back_ends - int(scenario.joining * back_ends), back_ends)
        self._begun = [0] * back_ends
        self._pools = [self._make_pool(case, self._joining.start, node) for node in range(NODES)]
        self._slow = int(scenario.slow * back_ends)
        self._failing = int(scenario.failing * back_ends)
        work = 1 + 2 * scenario.slow
        self._rate = BUSY * back_ends / (MEAN_S * (1 + 9 * scenario.long) * work)

    def _make_pool(self, case: Case, back_ends: int, node: int) -> Pool:
        settings = PolicySettings(seconds=lambda: self.now, chance=random.Random(node), seed=b"simulation")
        return Pool(
            name="simulated",
            members=[_member(place) for place in range(back_ends)],
            policy=makers(IBalancePolicyMaker)[case.policy].make(settings),
            ejector=Ejector(EjectRules(window_s=1.0)) if case.eject else None,
            limits=PoolLimits(slow_start_s=SLOW_START_S if case.slow_start else 0.0),
        )

    def _join(self) -> None:
        for pool in self._pools:
            members = [_member(place) for place in self._joining]
            pool.add(*members)
            for member in members:
                pool.recovers(member, self.now)
            pool.refresh()

    def run(self, requests: int) -> None:
        """Let them come; the first fifth is not counted, the back ends are still empty then."""
        ending: list[tuple[float, int, Pool, Member, float, bool]] = []
        chance, scenario = self._chance, self._scenario
        fails_from = requests / self._rate / 3
        joined = not self._joining
        arrival, tick = 0.0, 0.1
        for number in range(requests):
            arrival += chance.expovariate(self._rate)
            while ending and ending[0][0] <= arrival:
                self._end(heapq.heappop(ending), number > requests / 5)
            self.now = arrival
            if not joined and number > requests / 3:
                joined = True
                self._join()
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
                self._begun[place] += 1
                taken *= COLDER if place in self._joining and self._begun[place] <= COLD else 1
                taken *= 10 if scenario.long and chance.random() < scenario.long else 1
                ends = self._free_at[place] = max(arrival, self._free_at[place]) + taken
            heapq.heappush(ending, (ends, number, pool, member, arrival, fails))
        for entry in sorted(ending):
            self._end(entry, True)

    def _end(self, entry: tuple[float, int, Pool, Member, float, bool], counted: bool) -> None:
        ends, _, pool, member, began, failed = entry
        self.now = ends
        outcome = Outcome.SERVER_ERROR if failed else Outcome.ANSWERED
        if pool.end(member, outcome, ends - began, ends):
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


class Caller:
    """A client that brings back what it was given: the pool's cookie, and a session id of the application's."""

    def __init__(self, number: int) -> None:
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        self.address = ClientAddress(host, 1)
        self.key = host.encode()
        self._session = b"session=%d" % number
        self._cookies: list[bytes] = []

    def visit(self, pool: Pool) -> str:
        """Which back end answers."""
        member: Any = None
        found, mark = None, b""
        if pool.persistence is not None:
            fields = [(b"Cookie", b"; ".join(self._cookies))] if self._cookies else []
            found, mark = pool.persistence.find(RequestHead(b"GET", b"/", fields), self.address)
        member = found or pool.choose((), self.key)
        if pool.persistence is not None:
            given = [] if self._cookies else [(b"Set-Cookie", self._session)]
            response = ResponseHead(200, list(given))
            pool.persistence.answered(member, member is found, mark, response, False)
            self._cookies += [value.partition(b";")[0] for _, value in response.fields]
        name: str = member.address.name
        return name


def moved(pool: Pool) -> dict[str, float]:
    """Percent of the clients of back ends that stay which are elsewhere after one has gone, and after one has come."""
    callers = [Caller(number) for number in range(CLIENTS)]
    members = list(pool.members.values())
    before = [caller.visit(pool) for caller in callers]
    gone = members[len(members) // 2].address.name
    pool.remove(gone)
    after = [caller.visit(pool) for caller in callers]
    staying = [(then, now) for then, now in zip(before, after, strict=True) if then != gone]
    pool.add(_member(len(members)))
    grown = [caller.visit(pool) for caller in callers]
    return {
        "one_gone": 100 * sum(then != now for then, now in staying) / len(staying),
        "one_come": 100 * sum(then != now for then, now in zip(after, grown, strict=True)) / len(callers),
    }


def _persistences() -> dict[str, Any]:
    table = SessionTable(most=CLIENTS, ttl_s=60.0, seconds=lambda: 0.0)
    return {
        "persistence by hash": GroupPersistence(key_of=key_reader("client"), seed=b"simulation", seconds=lambda: 0.0),
        "persistence by cookie": CookiePersistence(cookie="LB", secret=b"simulation"),
        "persistence by learnt session": LearntPersistence(table=table, seed=b"simulation", cookie="session"),
    }


def _movers(back_ends: int) -> Iterator[tuple[str, dict[str, float]]]:
    persistences = _persistences()
    policies = ("round-robin", "random", "least-outstanding", "peak-ewma", "consistent-hash")
    for name in (*policies, *persistences):
        settings = PolicySettings(seconds=lambda: 0.0, chance=random.Random(1), seed=b"simulation")
        pool = Pool(
            name="simulated",
            members=[_member(place) for place in range(back_ends)],
            policy=makers(IBalancePolicyMaker)["round-robin" if name in persistences else name].make(settings),
            persistence=persistences.get(name),
        )
        yield name, moved(pool)


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
        for case in CASES:
            if not case.concerns(scenario):
                continue
            title = str(case)
            simulation = Simulation(case, scenario, back_ends=options.back_ends)
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
    heads = ["clients by", "one gone: % of the others moved", "one come: % of all moved"]
    _show(f"moved clients, {few} back ends", heads, rows, options.rst)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "policies.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
