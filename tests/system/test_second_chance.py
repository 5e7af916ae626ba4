"""Connections outlive what happens to other nodes: 2,000 of them, held open while the array changes.

Four things happen in every order: a node is added, one is drained, weights change, the scheduler is killed. Each run
takes four orders by lot that begin with different ones, two of them by tc and one by each of the other planes: what
comes first happens alone, the others after it.
``LBARRAY_ORDERS=all`` takes all 24, ``LBARRAY_ORDERS=kill,add,weigh,drain`` that one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import permutations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.connections import Held
from lbarray.testbed.nodes import NODES, Array, HeldConnections, wait_for
from tests.system.test_array import need_namespaces

CONNECTIONS = 2000
#: By the plane in Python, which each packet costs about a hundred times as much.
FEWER = 500
#: Opened after each change besides.
LATER = 100
FOUR = {**NODES, "d": "10.77.0.4"}
WEIGHTS = {"b": 250, "c": 60}
EVENTS = ("add", "drain", "weigh", "kill")
ORDERS = [",".join(order) for order in permutations(EVENTS)]
#: What comes first in the orders of this run.
FIRST = random.sample(EVENTS, len(EVENTS))


def chosen(*places: int) -> list[str]:
    """Orders of this run, by the places of what comes first in them, unless it is to be others."""
    wanted = os.environ.get("LBARRAY_ORDERS", "")
    if wanted:
        return ORDERS if wanted == "all" else [wanted]
    return [random.choice([each for each in ORDERS if each.startswith(FIRST[place])]) for place in places]


def _edit(plane: str) -> Callable[[str], str]:
    """Nodes that are busy with 2,000 clients on one machine may be silent for half a second without being dead."""
    scheduler = f'\n[scheduler]\nplane = "{plane}"\nslow_start = "1s"\nfeedback = false\n'
    return lambda text: text.replace("lost_after = 4", "lost_after = 12") + scheduler


class Changes:
    """An array of three nodes, and of four when one is added; who lives, takes clients, and with which weight."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.weights = dict.fromkeys(NODES, 100)
        self.drained: set[str] = set()
        array.kill_node("d")
        wait_for(lambda: array.owners() == ["a"], "a to own the VIP", 20, 0.1)
        wait_for(self._back_ends, "back ends", 20, 0.1)
        self.settle()

    def _back_ends(self) -> bool:
        statuses = [self.array.status(name) for name in self.weights]
        states = {each["state"] for status in statuses if status for each in status["pools"]["web"].values()}
        return None not in statuses and states == {"up"}

    def add(self) -> None:
        """Node d comes, and grows to its whole share in steps."""
        self.array.start_node("d")
        self.weights["d"] = 100

    def drain(self) -> None:
        """Node c takes no new clients."""
        self.array.drain("c")
        self.drained = {"c"}

    def weigh(self) -> None:
        """An operator changes weights, asking any node: by the command, and by the API."""
        said = self.array.command("b", "weigh", "b", str(WEIGHTS["b"]))
        token = (self.array.folder / "api.token").read_text().strip()
        fields = ("-H", f"Authorization: Bearer {token}", "-H", "Content-Type: application/json")
        content = f'{{"name": "c", "weight": {WEIGHTS["c"]}}}'
        said += self.array.host("b").run("curl", "-s", *fields, "-d", content, "http://127.0.0.1:9080/actions/weigh")
        for name, weight in WEIGHTS.items():
            assert f"node {name} has the weight {weight}" in said, said
        self.weights |= WEIGHTS

    def kill(self) -> None:
        """The machine of the scheduler dies, which is a worker too, and b succeeds it."""
        self.array.kill_node("a")
        self.array.network.link("a", up=False)
        del self.weights["a"]
        wait_for(lambda: "b" in self.array.owners(), "a successor", 10)

    def settle(self) -> None:
        """Until every node that lives has given the rows to those who are meant to have them, by their weights."""
        wanted = {name: weight for name, weight in self.weights.items() if name not in self.drained}

        def look(asked: str) -> bool:
            status = self.array.status(asked)
            workers = status["scheduler"]["workers"] if status else {}
            rows = {name: worker["rows"] for name, worker in workers.items() if worker["rows"]}
            if set(rows) != set(wanted):
                return False
            due = {name: sum(rows.values()) * weight / sum(wanted.values()) for name, weight in wanted.items()}
            return all(0.9 * due[name] < rows[name] < 1.1 * due[name] for name in wanted)

        for asked in self.weights:
            wait_for(lambda asked=asked: look(asked), f"{asked} to give rows by {wanted}", 20, 0.1)  # type: ignore[misc]

    def passed_on(self) -> int:
        """Packets that had a second chance."""
        statuses = [self.array.status(name) for name in self.weights]
        return sum(status["scheduler"]["verdicts"]["passed_on"] for status in statuses if status)


class OrderTestCase(SynchronousTestCase):
    """No connection of a living node breaks, whatever the table does."""

    def setUp(self) -> None:
        need_namespaces()

    def make(self, plane: str) -> Array:
        """The array, not yet there."""
        return Array(nodes=FOUR, edit=_edit(plane))

    def open(self, array: Array, count: int) -> HeldConnections:
        """So many connections."""
        return array.hold_connections(count)

    def hold(self, array: Array, count: int, nodes: set[str]) -> HeldConnections:
        """Connections to these nodes and no others; one that has many for its weight may get none of a few more, of
        many at the beginning each has some."""
        held = self.open(array, count)
        self.addCleanup(held.close)
        first = held.ask()
        self.assertEqual((first.broken, set(first.nodes) - nodes), ({}, set()))
        if count > LATER:
            self.assertEqual(set(first.nodes), nodes)
        return held

    def run_order(self, order: str, plane: str, count: int) -> None:
        """All that happens, one after the other; after each no connection of a node that lives is broken."""
        with self.make(plane) as array:
            changes = Changes(array)
            status = array.status("a")
            assert status is not None
            self.assertEqual(status["scheduler"]["plane"], plane)
            held = [self.hold(array, count, set(NODES))]
            happened: list[str] = []
            for event in order.split(","):
                happened.append(event)
                getattr(changes, event)()
                changes.settle()
                found = [each.ask() for each in held]
                broken = [each.broken_of(set(changes.weights)) for each in found]
                self.assertEqual(broken, [{}] * len(held), f"after {', '.join(happened)} of LBARRAY_ORDERS={order}")
                held.append(self.hold(array, LATER, set(changes.weights) - changes.drained))
            self.moved(changes, found[0])
            for each in held:
                each.close()

    def moved(self, changes: Changes, first: Held) -> None:
        """It was not for want of change: many connections are where their row is not, and were found there."""
        count = len(first.nodes)
        self.assertGreater(sum(node in changes.weights for node in first.nodes), count / 3)
        self.assertGreater(changes.passed_on(), count / 20)


class SecondChanceTests(OrderTestCase):
    """Within one segment, by each plane."""

    def test_orders(self) -> None:
        """A node added, one drained, weights changed, the scheduler killed: each alone, and in any order."""
        for order in chosen(0, 1):
            with self.subTest(order=order):
                self.run_order(order, "tc", CONNECTIONS)

    def test_packet(self) -> None:
        """The same by the plane in Python."""
        for order in chosen(2):
            with self.subTest(order=order):
                self.run_order(order, "packet", FEWER)

    def test_generic_xdp(self) -> None:
        """The same by generic XDP."""
        for order in chosen(3):
            with self.subTest(order=order):
                self.run_order(order, "xdp-generic", CONNECTIONS)
