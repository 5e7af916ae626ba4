"""Which of the fit back ends gets a request that is not bound to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from lbarray.backends.pool import Member
from lbarray.interfaces import IBalancePolicy

__all__ = ["POLICIES", "LeastOutstanding", "RoundRobin"]


@implementer(IBalancePolicy)
class RoundRobin:
    """In turn, by weight, and smoothly: a member of weight 3 among ones is not asked three times running.

    Each member saves up its weight per turn; the richest is asked and pays what all have saved.
    """

    name = "round-robin"

    def __init__(self) -> None:
        self._saved: dict[Member, int] = {}

    def choose(self, candidates: Sequence[Any], key: bytes) -> Member:
        saved = self._saved
        total = 0
        richest: Member | None = None
        most = 0
        for member in candidates:
            weight = member.weight
            total += weight
            has = saved[member] = saved.get(member, 0) + weight
            if richest is None or has > most:
                richest, most = member, has
        assert richest is not None
        saved[richest] -= total
        return richest


@implementer(IBalancePolicy)
class LeastOutstanding:
    """Whoever has the fewest requests in hand for its weight; equals take turns."""

    name = "least-outstanding"

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, candidates: Sequence[Any], key: bytes) -> Member:
        self._turn += 1
        count = len(candidates)
        start = self._turn % count
        best: Member = candidates[start]
        least = (best.outstanding + 1) / best.weight
        for step in range(1, count):
            member = candidates[(start + step) % count]
            burden = (member.outstanding + 1) / member.weight
            if burden < least:
                best, least = member, burden
        return best


POLICIES = {policy.name: policy for policy in (RoundRobin, LeastOutstanding)}
