"""New connections go to the less loaded of two workers, and outlive the scheduler that chose."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import VIP, Array, HeldConnections, wait_for
from tests.system.sharing import close, shared
from tests.system.test_array import need_namespaces

BUSY = 400
NEW = 200
SERVICE = f"{VIP}:80/tcp"


def _still(text: str) -> str:
    """Shares that do not follow the load, so that rows stay where they are."""
    return text.replace("lost_after = 4", "lost_after = 12") + "\n[scheduler]\nslow_start = 0\nfeedback = false\n"


def still_array() -> Array:
    """What both tests look at."""
    return Array(edit=_still).__enter__()


class ChoiceTests(SynchronousTestCase):
    """Three nodes; a owns the VIP, and b holds 400 connections more than the others."""

    def setUp(self) -> None:
        need_namespaces()
        self.array = shared(still_array)
        self.assertEqual(self.array.wait_ready(), "a")
        self.idle = ("a", "c")
        for name in self.idle:
            self.array.drain(name)
        self.busy = self.hold(BUSY)
        for name in self.idle:
            self.array.command("b", "undrain", name)
        self.wait(self.settled, "rows of all")

    def wait(self, look: Any, what: str) -> None:
        wait_for(lambda: look() or None, what, timeout_s=10.0, pause_s=0.05)

    def status(self, name: str = "a") -> dict[str, Any]:
        return wait_for(lambda: self.array.status(name), f"the status of {name}")

    def rows(self) -> dict[str, int]:
        return {name: worker["rows"] for name, worker in self.status()["scheduler"]["workers"].items()}

    def settled(self) -> bool:
        """Both that were drained have their rows again, as many as b."""
        rows = list(self.rows().values())
        return max(rows) < 1.5 * min(rows)

    def shares(self, name: str, field: str) -> dict[str, int]:
        """A counter of the plain service, by worker."""
        return {worker: share[field] for worker, share in self.status(name)["scheduler"]["services"][SERVICE].items()}

    def hold(self, count: int) -> HeldConnections:
        held = self.array.hold_connections(count)
        self.addCleanup(held.close)
        self.assertEqual(held.ask().broken, {})
        return held

    def avoiding(self) -> HeldConnections:
        """New connections, as soon as the scheduler has heard how busy b is."""

        def look() -> HeldConnections | None:
            held = self.hold(NEW)
            # By its row every third one were b's, by both of its rows every ninth.
            if held.ask().nodes.count("b") < NEW / 5.5:
                return held
            held.close()
            return None

        return wait_for(look, "new connections that avoid b", timeout_s=20.0)

    def test_1_busy_worker(self) -> None:
        """New connections go past a busy worker, though it has as many rows as before, and it is counted how often."""
        rows = self.rows()
        self.avoiding()
        self.assertEqual(self.rows(), rows)
        chosen = self.shares("a", "chosen")
        taken = sum(chosen[name] for name in self.idle)
        self.assertGreater(taken, NEW / 12)
        self.assertLess(chosen["b"], taken / 4)

    def test_2_scheduler_killed(self) -> None:
        """A scheduler that remembers nothing finds every connection that is where its row is not."""
        self.addCleanup(close)
        held = self.avoiding()
        before = held.ask()
        self.array.kill_node("a")
        self.array.network.link("a", up=False)
        self.wait(lambda: "b" in self.array.owners(), "a successor")
        for each in (held, self.busy):
            self.assertEqual(each.ask().broken_of({"b", "c"}), {})
        self.assertGreater(before.nodes.count("c"), NEW / 4)
        passed_on = sum(self.status(name)["scheduler"]["verdicts"]["passed_on"] for name in ("b", "c"))
        self.assertGreater(passed_on, 10)
