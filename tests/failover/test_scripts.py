"""Operators' scripts, as real processes."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from lbarray.config.failover import Script
from lbarray.failover.scripts import CheckScripts
from lbarray.failover.tracking import Condition

reactor: Any = global_reactor
SHELL = "/bin/sh"


class ScriptTests(TestCase):
    """Exit codes, time-outs, and what is told of them."""

    timeout = 20

    def verdicts(self, script: Script, until: int = 1) -> Deferred[list[tuple[Condition, bool, str]]]:
        """What is reported, once there are so many."""
        told: list[tuple[Condition, bool, str]] = []
        done: Deferred[list[tuple[Condition, bool, str]]] = Deferred()

        def report(condition: Condition, good: bool, why: str) -> None:
            told.append((condition, good, why))
            if len(told) == until:
                done.callback(told)

        it = CheckScripts(reactor=reactor, scripts={"disk": script}, report=report)
        it.startService()
        self.addCleanup(it.stopService)
        return done

    async def test_success(self) -> None:
        """Exit code 0 is good."""
        [(condition, good, _)] = await self.verdicts(Script(command=("/bin/true",), weight=60))
        self.assertEqual((condition, good), (Condition("script disk", 60), True))

    async def test_failure(self) -> None:
        """After ``fall`` failures the operator is told the exit code and what the script said."""
        script = Script(command=(SHELL, "-c", "echo no space >&2; exit 3"), interval=0.02, fall=2)
        told = await self.verdicts(script, until=2)
        self.assertEqual([good for _, good, _ in told], [True, False])
        self.assertEqual(told[1][2], "check script disk failed: exit code 3: no space")

    async def test_too_slow(self) -> None:
        """A script that hangs is killed, and has failed."""
        script = Script(command=("/bin/sleep", "30"), timeout=0.05, fall=1)
        [(_, good, why)] = await self.verdicts(script)
        self.assertEqual((good, why), (False, "check script disk failed: took more than 0.05 s"))

    async def test_missing(self) -> None:
        """A program that is not there has failed."""
        [(_, good, why)] = await self.verdicts(Script(command=("/no/such/program",), fall=1))
        self.assertFalse(good)
        self.assertIn("check script disk failed", why)

    async def test_one_at_a_time(self) -> None:
        """No run begins before the last one has ended, however short the interval."""
        path = self.mktemp()
        command = f"mkdir {path} || exit 9; sleep 0.05; rmdir {path}"
        told = await self.verdicts(Script(command=(SHELL, "-c", command), interval=0.01, fall=1), until=4)
        self.assertEqual([good for _, good, _ in told], [True] * 4)
