"""Shares that follow the load of real nodes, and that do not when they are told so."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import Array, wait_for
from tests.system.test_array import need_namespaces

BUSY = 300


def _edit(text: str) -> str:
    return text.replace("lost_after = 4", "lost_after = 12") + "\n[scheduler]\nslow_start = 0\nfeedback = true\n"


class FeedbackTests(SynchronousTestCase):
    """Three nodes on one machine, whose processors they share: what differs is how many connections each holds."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = Array(edit=_edit)
        self.addCleanup(self.it.close)
        self.it.__enter__()
        self.it.wait_ready()

    def rows(self) -> dict[str, int]:
        status = self.it.status("a")
        workers = status["scheduler"]["workers"] if status else {}
        return {name: worker["rows"] for name, worker in workers.items()}

    def fraction(self) -> float:
        """The rows of b, against those of a and c; 0.5 when all three have as many."""
        rows = self.rows()
        return rows.get("b", 0) / max(1, rows.get("a", 0) + rows.get("c", 0))

    def test_follows_connections(self) -> None:
        """A node that holds nearly all connections gets fewer rows, step by step, and all of them again when shares no
        longer follow, by a reload; what it holds stays."""
        for name in "ac":
            self.it.drain(name)
        wait_for(lambda: set(self.rows().values()) >= {0} and self.rows()["b"] == sum(self.rows().values()), "b alone")
        held = self.it.hold_connections(BUSY)
        self.addCleanup(held.close)
        self.assertEqual(set(held.ask().nodes), {"b"})
        for name in "ac":
            self.it.command("b", "undrain", name)
        wait_for(lambda: min(self.rows().values()) > 0, "rows of all")
        seen = []

        def falls() -> bool:
            seen.append(self.fraction())
            return seen[-1] < 0.5 * 0.75

        wait_for(falls, "b with fewer rows", 30.0, 0.1)
        whole = [each for each in seen if each <= 0.55]
        # A tenth at a time, however large the difference is; a look may miss a step.
        self.assertTrue(all(after > 0.75 * before for before, after in pairwise(whole)), whole)
        self.it.config.write_text(self.it.config.read_text().replace("feedback = true", "feedback = false"))
        for name in self.it.nodes:
            self.it.command(name, "reload")
        wait_for(lambda: 0.45 < self.fraction() < 0.55, "equal shares", 10.0, 0.1)
        self.assertEqual(held.ask().broken, {})
