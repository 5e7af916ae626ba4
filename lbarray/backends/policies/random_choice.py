"""By lot."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from itertools import accumulate
from typing import Any

from zope.interface import implementer

from lbarray.interfaces import IBalancePolicy
from lbarray.plugin import PolicySettings

__all__ = ["RandomChoice"]


@implementer(IBalancePolicy)
class RandomChoice:
    """By lot, by weight.

    Choose it where very many nodes with little traffic each share the back ends: there is nothing that they
    could do in step. Everywhere else something better is to be had.
    """

    follows = False

    def __init__(self, settings: PolicySettings) -> None:
        self._random = settings.chance.random
        self._fit: list[Any] = []
        self._sums: list[float] = []

    def update(self, members: Sequence[Any], fit: Sequence[Any]) -> None:
        self._fit = list(fit)
        self._sums = list(accumulate(member.share for member in fit))

    def choose(self, key: bytes, avoid: Collection[Any]) -> Any | None:
        fit, sums = self._fit, self._sums
        if avoid:
            fit = [member for member in fit if member not in avoid]
            sums = list(accumulate(member.share for member in fit))
        if not fit:
            return None
        return fit[min(bisect(sums, self._random() * sums[-1]), len(fit) - 1)]

    def began(self, member: Any) -> None:
        """Not of interest."""

    def ended(self, member: Any, latency_s: float | None) -> None:
        """Not of interest."""
