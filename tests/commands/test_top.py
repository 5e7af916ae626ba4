"""The live screen, from two statuses."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands.top import screen
from tests.console.test_console import PARTS


def drawn(before: dict[str, Any], now: dict[str, Any], width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(screen(before, now))
    return out.getvalue()


def status(uptime_s: float, **parts: Any) -> dict[str, Any]:
    return {"node": "a", "array": "shop", "version": "1", "uptime_s": uptime_s, **parts}


class ScreenTests(SynchronousTestCase):
    """What is on it."""

    def test_rates(self) -> None:
        """Counters are shown by what they grew per second."""
        before = status(10.0, services={"http": {"requests": 100}}, counters={"retries": {"closed": 4}})
        now = status(12.0, services={"http": {"requests": 150}}, counters={"retries": {"closed": 5}})
        lines = drawn(before, now).splitlines()
        self.assertIn("25.0", next(line for line in lines if line.startswith("http")))
        self.assertIn("0.5", next(line for line in lines if line.startswith("retries")))

    def test_restarted(self) -> None:
        """A node that was restarted in between has no negative rates."""
        text = drawn(
            status(900.0, services={"http": {"requests": 1000}}), status(1.0, services={"http": {"requests": 3}})
        )
        self.assertNotIn("-", text.replace("-----", ""))

    def test_everything(self) -> None:
        """Nodes in and missing, back ends with their state, and the version of the configuration."""
        now = status(90.0, **PARTS, configuration={"version": "0123abc"})
        text = drawn(now, now)
        for word in ("192.0.2.1", "missing", "web/w1", "up", "status 200", "0123abc", "90 s"):
            self.assertIn(word, text)

    def test_narrow(self) -> None:
        """On 80 columns every figure has its whole head; what a check said gives way."""
        now = status(90.0, **PARTS)
        text = drawn(now, now, width=80)
        for head in ("back end", "address", "state", "requests/s", "in hand", "failed/s", "idle"):
            self.assertIn(head, text)

    def test_nothing(self) -> None:
        """A node without these parts has a screen all the same."""
        self.assertIn("shop", drawn(status(1.0), status(2.0)))
