"""Whoever has the least to do."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from typing import Any

from zope.interface import implementer

from lbarray.interfaces import IBalancePolicy
from lbarray.plugin import PolicySettings

__all__ = ["LeastOutstanding"]


@implementer(IBalancePolicy)
class LeastOutstanding:
    """Whoever has the fewest requests in hand for its weight; equals take turns.

    Choose it where requests cost very differently, or take long. Mind that a back end which fails fast looks
    idle: have failing ones ejected (``[pools.NAME.eject]``). With many nodes, each counts only its own requests.

    A heap that is put in order lazily: one entry per member counts, and it is looked at again only when it
    comes to the top, so a choice costs a logarithm however many members there are.
    """

    follows = True

    def __init__(self, settings: PolicySettings) -> None:
        self._chance = settings.chance
        self._heap: list[tuple[float, int, Any]] = []
        self._valid: dict[Any, tuple[float, int, Any]] = {}
        self._sequence = 0

    def update(self, members: Sequence[Any], fit: Sequence[Any]) -> None:
        start = int(self._chance.random() * len(fit))
        self._heap = []
        for place in range(len(fit)):
            member = fit[(start + place) % len(fit)]
            self._sequence += 1
            self._heap.append(((member.outstanding + 1) / member.share, self._sequence, member))
        self._valid = {entry[2]: entry for entry in self._heap}
        heapq.heapify(self._heap)

    def choose(self, key: bytes, avoid: Collection[Any]) -> Any | None:
        heap, valid = self._heap, self._valid
        aside = []
        chosen = None
        while heap:
            entry = heap[0]
            member = entry[2]
            if valid[member] is not entry:
                heapq.heappop(heap)
                continue
            if avoid and member in avoid:
                aside.append(heapq.heappop(heap))
                continue
            outstanding, share = member.outstanding, member.share
            self._sequence += 1
            if (outstanding + 1) / share > entry[0]:  # it has been given requests since
                entry = valid[member] = ((outstanding + 1) / share, self._sequence, member)
                heapq.heapreplace(heap, entry)
                continue
            entry = valid[member] = ((outstanding + 2) / share, self._sequence, member)
            heapq.heapreplace(heap, entry)
            chosen = member
            break
        for entry in aside:
            heapq.heappush(heap, entry)
        return chosen

    def began(self, member: Any) -> None:
        """Seen when it comes to the top."""

    def ended(self, member: Any, latency_s: float | None) -> None:
        entry = self._valid.get(member)
        if entry is None:
            return
        burden = (member.outstanding + 1) / member.share
        if burden < entry[0]:
            self._sequence += 1
            entry = self._valid[member] = (burden, self._sequence, member)
            heapq.heappush(self._heap, entry)
            if len(self._heap) > 4 * len(self._valid) + 64:
                self._heap = list(self._valid.values())
                heapq.heapify(self._heap)
