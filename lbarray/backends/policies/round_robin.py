"""In turn."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence
from math import gcd
from typing import Any

from zope.interface import implementer

from lbarray.interfaces import IBalancePolicy
from lbarray.plugin import PolicySettings

__all__ = ["RoundRobin", "smooth_cycle"]

#: Steps that the making of one whole cycle may take; beyond, turns are found one by one.
CYCLE_STEPS = 20_000


def smooth_cycle(weights: Sequence[int]) -> list[int]:
    """The places of one whole cycle: 5:1:1 gives aabacaa, not aaaaabc.

    Each place saves up its weight per turn; the richest is asked and pays what all have saved. After the
    sum of the weights (which have no common divisor) everybody has nothing again.
    """
    total = sum(weights)
    saved = [0] * len(weights)
    cycle = []
    for _ in range(total):
        richest = 0
        for place, weight in enumerate(weights):
            saved[place] += weight
            if saved[place] > saved[richest]:
                richest = place
        saved[richest] -= total
        cycle.append(richest)
    return cycle


@implementer(IBalancePolicy)
class RoundRobin:
    """In turn, by weight, and smoothly: a member of weight 3 among ones is not asked three times running.

    Choose it where requests cost about the same and back ends are alike but for their weight: it spreads
    best and looks at nothing. A slow back end gets as many requests as a fast one.
    """

    follows = False

    def __init__(self, settings: PolicySettings) -> None:
        self._chance = settings.chance
        self._cycle: list[Any] = []
        self._turn = 0
        self._heap: list[tuple[float, int, Any]] = []

    def update(self, members: Sequence[Any], fit: Sequence[Any]) -> None:
        self._heap = []
        self._cycle = []
        if not fit:
            return
        weights = [max(1, round(member.share * 100)) for member in fit]
        divisor = gcd(*weights)
        weights = [weight // divisor for weight in weights]
        if max(weights) == 1:
            self._cycle = list(fit)
        elif sum(weights) * len(weights) <= CYCLE_STEPS:
            self._cycle = [fit[place] for place in smooth_cycle(weights)]
        else:
            # Earliest deadline first: whoever is due soonest, and then after its own interval again.
            self._heap = [((0.5 + place / len(fit)) / member.share, place, member) for place, member in enumerate(fit)]
            heapq.heapify(self._heap)
        if self._turn == 0:
            # Nodes that start together do not ask the same back end first.
            self._turn = int(self._chance.random() * len(fit))

    def choose(self, key: bytes, avoid: Collection[Any]) -> Any | None:
        cycle = self._cycle
        if cycle:
            turn = self._turn + 1
            if turn >= len(cycle):
                turn %= len(cycle)
            self._turn = turn
            if not avoid:
                return cycle[turn]
            for step in range(len(cycle)):
                member = cycle[(turn + step) % len(cycle)]
                if member not in avoid:
                    return member
            return None
        return self._due(avoid)

    def _due(self, avoid: Collection[Any]) -> Any | None:
        heap = self._heap
        for _ in range(len(heap)):
            due, place, member = heap[0]
            heapq.heapreplace(heap, (due + 1.0 / member.share, place, member))
            if not avoid or member not in avoid:
                return member
        return next((entry[2] for entry in heap if entry[2] not in avoid), None)

    def began(self, member: Any) -> None:
        """Not of interest."""

    def ended(self, member: Any, latency_s: float | None) -> None:
        """Not of interest."""
