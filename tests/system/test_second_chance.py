"""Connections outlive what happens to other nodes: 2,000 of them, held open while the array changes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.connections import Held
from lbarray.testbed.nodes import NODES, Array, HeldConnections, wait_for
from tests.system.test_array import need_namespaces

CONNECTIONS = 2000
FOUR = {**NODES, "d": "10.77.0.4"}


def _quick(text: str) -> str:
    """A node that joins grows to its whole share in steps: each is a change of weights, and the only kind here.

    Nodes that are busy with 2,000 clients on one machine may be silent for half a second without being dead.
    """
    return text.replace("lost_after = 4", "lost_after = 12") + '\n[scheduler]\nslow_start = "2s"\nfeedback = false\n'


class SecondChanceTests(SynchronousTestCase):
    """No connection of a living node breaks, whatever the table does."""

    def setUp(self) -> None:
        need_namespaces()

    def rows(self, array: Array, asked: str) -> dict[str, int]:
        """How many rows each node has, as one of them sees it."""
        status = array.status(asked)
        workers = status["scheduler"]["workers"] if status else {}
        return {name: worker["rows"] for name, worker in workers.items() if worker["rows"]}

    def wait_rows(self, array: Array, asked: str, wanted: set[str], even: bool = True) -> None:
        """Until these nodes have rows, and about as many each."""

        def look() -> bool:
            rows = self.rows(array, asked)
            return set(rows) == wanted and (not even or min(rows.values()) > 0.8 * max(rows.values()))

        wait_for(look, f"rows for {', '.join(sorted(wanted))}", 20, 0.1)

    def start(self, array: Array, without: str) -> HeldConnections:
        """The array without one of its nodes, and the connections to the others."""
        array.kill_node(without)
        others = set(FOUR) - {without}
        for name in others:
            self.wait_rows(array, name, others)
        held = array.hold_connections(CONNECTIONS)
        self.addCleanup(held.close)
        first = held.ask()
        self.assertEqual(first.broken, {})
        self.assertEqual(set(first.nodes), others)
        return held

    def unbroken(self, held: HeldConnections, nodes: set[str]) -> Held:
        """Ask over all; none of these nodes' connections has broken."""
        found = held.ask()
        self.assertEqual(found.broken_of(nodes), {})
        return found

    def passed_on(self, array: Array, name: str) -> int:
        status = array.status(name)
        assert status is not None
        return int(status["scheduler"]["verdicts"]["passed_on"])

    def test_add_drain_kill(self) -> None:
        """A node joins and grows, another is drained, then the scheduler is killed: one after the other."""
        with Array(nodes=FOUR, edit=_quick) as array:
            array.wait_ready()
            held = self.start(array, "d")
            array.start_node("d")
            self.wait_rows(array, "a", set(FOUR))
            self.unbroken(held, {"a", "b", "c"})
            array.drain("b")
            self.wait_rows(array, "a", {"a", "c", "d"})
            self.unbroken(held, {"a", "b", "c"})
            array.kill_node("a")
            wait_for(lambda: array.owners() == ["b"], "a successor", 10)
            self.wait_rows(array, "b", {"c", "d"})
            found = self.unbroken(held, {"b", "c"})
            # The new scheduler remembers nothing: what moved was found by the workers.
            self.assertGreater(sum(node != "a" for node in found.nodes), CONNECTIONS / 3)
            self.assertGreater(sum(self.passed_on(array, name) for name in ("b", "c", "d")), 100)

    def test_kill_drain_add(self) -> None:
        """The same in the other order."""
        with Array(nodes=FOUR, edit=_quick) as array:
            array.wait_ready()
            held = self.start(array, "d")
            array.kill_node("a")
            wait_for(lambda: array.owners() == ["b"], "a successor", 10)
            self.wait_rows(array, "b", {"b", "c"})
            self.unbroken(held, {"b", "c"})
            array.drain("c")
            self.wait_rows(array, "b", {"b"})
            self.unbroken(held, {"b", "c"})
            array.start_node("d")
            self.wait_rows(array, "b", {"b", "d"})
            self.unbroken(held, {"b", "c"})
