"""Operators' check scripts: programs whose exit code bears on who owns the VIPs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from lbarray.config.failover import Script
from lbarray.failover.tracking import Condition, Rise

__all__ = ["CheckScripts"]

#: Octets of a script's output that are kept for its operator.
KEPT = 200
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class _Run(ProcessProtocol):
    """One run of one script."""

    def __init__(self, reactor: Any, timeout_s: float, ended: Callable[[bool, str], None]) -> None:
        self._ended = ended
        self._said = b""
        self._timeout_s = timeout_s
        self._late = False
        self._limit: IDelayedCall = reactor.callLater(timeout_s, self._too_late)

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[:KEPT]

    errReceived = outReceived

    def _too_late(self) -> None:
        self._late = True
        self.kill()

    def forget(self) -> None:
        """It was never begun."""
        self._limit.cancel()

    def kill(self) -> None:
        """End the program."""
        transport: Any = self.transport
        if transport is not None and transport.pid:
            transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        if self._limit.active():
            self._limit.cancel()
        said = self._said.decode("utf-8", "replace").strip().replace("\n", " ")
        if reason.check(ProcessDone):
            self._ended(True, said)
        elif self._late:
            self._ended(False, f"took more than {self._timeout_s:g} s")
        else:
            code = getattr(reason.value, "exitCode", None)
            how = f"exit code {code}" if code is not None else f"signal {getattr(reason.value, 'signal', '?')}"
            self._ended(False, f"{how}: {said}" if said else how)


class CheckScripts(Service):
    """Runs every script at its interval; no run of one begins before its last one has ended.

    :param report: told of each verdict: condition, good or not, and why not.
    :ivar scripts: by name.
    """

    def __init__(
        self, *, reactor: Any, scripts: Mapping[str, Script], report: Callable[[Condition, bool, str], None]
    ) -> None:
        self.scripts = dict(scripts)
        self._reactor = reactor
        self._report = report
        self._running: dict[str, _Run] = {}
        self._loops: list[tuple[LoopingCall, float]] = []
        for name, script in scripts.items():
            verdict = Rise(fall=script.fall, rise=script.rise)
            loop = LoopingCall(self._run, name, script, verdict)
            loop.clock = reactor
            self._loops.append((loop, script.interval))

    def startService(self) -> None:
        super().startService()
        for loop, interval_s in self._loops:
            loop.start(interval_s)

    def stopService(self) -> None:
        super().stopService()
        for loop, _ in self._loops:
            if loop.running:
                loop.stop()
        for run in list(self._running.values()):
            run.kill()

    def _run(self, name: str, script: Script, verdict: Rise) -> None:
        if name in self._running:
            return

        def ended(passed: bool, said: str) -> None:
            self._running.pop(name, None)
            if self.running:
                good = verdict.seen(passed)
                self._report(Condition(f"script {name}", script.weight), good, f"check script {name} failed: {said}")

        self._running[name] = run = _Run(self._reactor, script.timeout, ended)
        try:
            self._reactor.spawnProcess(run, script.command[0], script.command, env=ENVIRONMENT)
        except OSError as error:
            run.forget()
            ended(False, str(error))
