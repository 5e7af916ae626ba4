"""How late the event loop comes: the first sign of a process that has too much to do."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

__all__ = ["ReactorLag"]

EVERY_S = 0.5
#: So many looks are a minute.
KEEP = 120


class ReactorLag(Service):
    """Looks twice a second how much later than asked it is called.

    :ivar lag_s: the longest within the last minute.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._due = 0.0
        self._seen: deque[float] = deque([0.0], maxlen=KEEP)
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        self._due = self._clock.seconds() + EVERY_S
        self._loop.start(EVERY_S, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        now = self._clock.seconds()
        self._seen.append(max(0.0, now - self._due))
        self._due = now + EVERY_S

    @property
    def lag_s(self) -> float:
        """Seconds."""
        return max(self._seen)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {"lag_s": round(self.lag_s, 4)}
