"""The worker's side of direct return, looked at continuously, repaired, and named when it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.kernel.direct_return import Fault
from lbarray.telemetry.counters import Counters

__all__ = ["DirectReturnService"]

LOOK_S = 2.0


class DirectReturnService(Service):
    """Somebody else changes kernel parameters and addresses too: configuration management, network daemons, people.

    :param look: finds what is wrong now.
    :param changed: :attr:`trouble` is another now.
    :ivar trouble: one line with what is wrong and could not be repaired; empty when all is well.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        look: Callable[[], Sequence[Fault]],
        changed: Callable[[], None],
        counters: Counters,
    ) -> None:
        self.trouble = ""
        self._look = look
        self._changed = changed
        self._counters = counters
        self._repaired: list[str] = []
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        self._loop.start(LOOK_S)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _check(self) -> None:
        left: list[str] = []
        for fault in self._look():
            try:
                if fault.repair is None:
                    left.append(str(fault))
                    continue
                fault.repair()
            except SystemRefused as error:
                left.append(f"{fault}; {error}")
                continue
            self._counters.add("direct_return_repaired")
            self._repaired = [*self._repaired[-9:], str(fault)]
            self.log.warn("direct return, repaired: {fault}; who changes it?", fault=str(fault))
        trouble = "; ".join(left)
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                self._counters.add("direct_return_broken")
                self.log.error("direct return does not work on this machine: {trouble}", trouble=trouble)
            else:
                self.log.info("direct return works again on this machine")
            self._changed()

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {"trouble": self.trouble, "repaired": self._repaired}
