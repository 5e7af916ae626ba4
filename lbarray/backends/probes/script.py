"""Looking at a back end by a program."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.config.pools import Check
from lbarray.interfaces import IHealthProbe
from lbarray.values import BackendAddress

__all__ = ["ScriptProbe"]


class _Running(ProcessProtocol):
    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[Seen] | None = Deferred(lambda _: self.kill())
        self._said = b""

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[:200]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        code = getattr(reason.value, "exitCode", None)
        line = self._said.decode("utf-8", "replace").strip().partition("\n")[0]
        how = f"exit code {code}" if code is not None else f"signal {getattr(reason.value, 'signal', '?')}"
        self.tell(Seen(code == 0, f"{how}{': ' if line else ''}{line}"))

    def tell(self, seen: Seen) -> None:
        done, self.done = self.done, None
        if done is not None:
            done.callback(seen)

    def kill(self) -> None:
        self.done = None
        if self.transport is not None:
            try:
                self.transport.signalProcess("KILL")
            except ProcessExitedAlready:
                pass


@implementer(IHealthProbe)
class ScriptProbe:
    """A back end for which ``check.command`` ends with code 0 within ``check.timeout`` is well.

    The program gets address, port, pool and name of the back end as its last arguments, and of the
    environment only PATH.
    """

    def __init__(self, reactor: Any, check: Check) -> None:
        self._reactor = reactor
        self._check = check

    def probe(self, backend: BackendAddress) -> Deferred[Seen]:
        """Run it once."""
        check = self._check
        running = _Running()
        assert running.done is not None
        done = running.done
        port = str(check.port or backend.port)
        arguments = [*check.command, backend.host, port, backend.pool, backend.name]
        environment = {"PATH": os.environ.get("PATH", os.defpath)}
        try:
            self._reactor.spawnProcess(running, check.command[0], arguments, env=environment)
        except OSError as error:
            running.tell(Seen(False, f"cannot run {check.command[0]}: {error.strerror}"))
            return done

        def late() -> None:
            running.tell(Seen(False, f"not done within {check.timeout:g} s"))
            running.kill()

        call = self._reactor.callLater(check.timeout, late)

        def over(result: Any) -> Any:
            if call.active():
                call.cancel()
            return result

        return done.addBoth(over)
