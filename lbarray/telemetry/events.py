"""What happened lately, for those who look: the lines of the log that come from lbarray itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

import attrs
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

__all__ = ["Event", "RecentEvents"]


@attrs.frozen
class Event:
    """One thing that happened.

    :ivar number: counts up by one from the start of the process.
    :ivar at: seconds since the epoch; :ivar level: ``info``, ``warn``, ``error`` or ``critical``.
    :ivar room: which part says it, such as ``failover``.
    """

    number: int
    at: float
    level: str
    room: str
    text: str


@implementer(ILogObserver)
class RecentEvents:
    """Keeps the last ``size`` events of level ``info`` and above, and tells listeners of each as it happens."""

    def __init__(self, size: int = 200) -> None:
        self._events: deque[Event] = deque(maxlen=size)
        self._listeners: list[Callable[[Event], None]] = []
        self._numbers = count(1)

    def __call__(self, event: Any) -> None:
        room = room_of(event)
        level = event.get("log_level", LogLevel.info)
        if not room or level is LogLevel.debug:
            return
        seen = Event(next(self._numbers), event.get("log_time", 0.0), level.name, room, formatEvent(event)[:1000])
        self._events.append(seen)
        for listener in list(self._listeners):
            listener(seen)

    def start(self) -> None:
        """Hear what is logged from now on."""
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        """Hear no more."""
        globalLogPublisher.removeObserver(self)

    def since(self, number: int = 0) -> list[Event]:
        """Those after ``number`` that are still kept, the oldest first."""
        return [event for event in self._events if event.number > number]

    def subscribe(self, happened: Callable[[Event], None]) -> Callable[[], None]:
        """Call ``happened`` with each event from now on. Returns a callable that ends it."""
        self._listeners.append(happened)
        return lambda: self._listeners.remove(happened)


def room_of(event: Any) -> str:
    """The part of lbarray that logged this (``failover`` for ``lbarray.failover.…``); empty: not lbarray."""
    head, _, rest = str(event.get("log_namespace", "")).partition(".")
    return (rest.partition(".")[0] or "lbarray") if head == "lbarray" else ""
