"""Requests that wait until a back end has room for them."""

from __future__ import annotations

import heapq
from typing import Any, Protocol

__all__ = ["RequestQueue", "Waiter"]


class Waiter(Protocol):
    """A request in the queue.

    :ivar priority: higher ones go first; :ivar bound: the only member that may have it, ``None`` for any;
    :ivar sequence: written by the queue; :ivar gone: it is not in the queue any more.
    """

    priority: int
    bound: Any
    sequence: int
    gone: bool


class RequestQueue:
    """By priority, then in order of arrival, for each member that requests are bound to.

    :param length: so many wait at most. A more important one then takes the place of the latest of the
        least important, which is refused.
    :ivar count: so many wait now.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._lanes: dict[Any, list[tuple[int, int, Waiter]]] = {}
        self._by_priority: dict[int, int] = {}
        self.count = 0
        self._sequence = 0

    def __len__(self) -> int:
        return self.count

    def push(self, waiter: Waiter) -> Waiter | None:
        """Let it wait. The one that finds no place: ``waiter`` itself, one that had to go for it, or ``None``."""
        refused = None
        if self.count >= self.length:
            least = min(self._by_priority, default=waiter.priority)
            if least >= waiter.priority:
                return waiter
            entries = [
                entry for lane in self._lanes.values() for entry in lane if entry[0] == -least and not entry[2].gone
            ]
            refused = max(entries, key=lambda entry: entry[1])[2]
            self.remove(refused)
        self._sequence += 1
        waiter.sequence = self._sequence
        waiter.gone = False
        heapq.heappush(self._lanes.setdefault(waiter.bound, []), (-waiter.priority, self._sequence, waiter))
        self.count += 1
        self._by_priority[waiter.priority] = self._by_priority.get(waiter.priority, 0) + 1
        return refused

    def remove(self, waiter: Waiter) -> None:
        """It waits no longer. One that is gone already is no matter."""
        if waiter.gone:
            return
        waiter.gone = True
        self.count -= 1
        left = self._by_priority[waiter.priority] - 1
        if left:
            self._by_priority[waiter.priority] = left
        else:
            del self._by_priority[waiter.priority]
        if not self.count:
            self._lanes.clear()

    def first(self, *bounds: Any) -> Waiter | None:
        """Who is next among those bound to one of ``bounds`` (``None``: bound to nobody); it stays."""
        best: tuple[int, int, Waiter] | None = None
        for bound in bounds:
            lane = self._lanes.get(bound)
            while lane and lane[0][2].gone:
                heapq.heappop(lane)
            if lane and (best is None or lane[0][:2] < best[:2]):
                best = lane[0]
        return best[2] if best else None

    def bounds(self) -> list[Any]:
        """Every member that some request is bound to."""
        return [bound for bound in self._lanes if bound is not None]

    def unbind(self, bound: Any) -> None:
        """The member cannot serve: those bound to it may go to any."""
        for _, _, waiter in self._lanes.pop(bound, []):
            if not waiter.gone:
                self.remove(waiter)
                waiter.bound = None
                self.push(waiter)
