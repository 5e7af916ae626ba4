"""The better of two drawn by lot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import exp, inf
from typing import Any

from zope.interface import implementer

from lbarray.interfaces import IBalancePolicy
from lbarray.plugin import PolicySettings

__all__ = ["PeakEwma"]


class _Seen:
    """What has been measured of a member. ``latency_s`` is below 0 as long as nothing has."""

    __slots__ = ("at", "latency_s")

    def __init__(self) -> None:
        self.latency_s = -1.0
        self.at = 0.0


@implementer(IBalancePolicy)
class PeakEwma:
    """Power of two choices (Mitzenmacher 2001) by latency times requests in hand.

    Choose it where back ends differ, become slow now and then, or share machines with others: a slow answer
    counts at once and in full, and is forgotten slowly (peak-sensitive average, as in Finagle). Two are drawn, so
    nodes that know the same do not all run to the same back end.
    """

    follows = True

    def __init__(self, settings: PolicySettings) -> None:
        self._random = settings.chance.random
        self._seconds = settings.seconds
        self._decay_s = settings.decay_s
        self._fit: list[Any] = []
        self._seen: dict[Any, _Seen] = {}

    def update(self, members: Sequence[Any], fit: Sequence[Any]) -> None:
        self._seen = {member: self._seen.get(member) or _Seen() for member in members}
        self._fit = list(fit)

    def choose(self, key: bytes, avoid: Collection[Any]) -> Any | None:
        fit = [member for member in self._fit if member not in avoid] if avoid else self._fit
        count = len(fit)
        if count < 2:
            return fit[0] if fit else None
        first = int(self._random() * count)
        second = int(self._random() * (count - 1))
        if second >= first:
            second += 1
        one, other = fit[first], fit[second]
        now = self._seconds()
        cost, cost_of_other = self._cost(one, now), self._cost(other, now)
        if cost == cost_of_other:  # nothing measured of either
            return one if one.outstanding * other.share <= other.outstanding * one.share else other
        return one if cost < cost_of_other else other

    def _cost(self, member: Any, now: float) -> float:
        seen = self._seen[member]
        if seen.latency_s < 0:
            # A newcomer gets one request to show what it can do, and no more before it has answered.
            return inf if member.outstanding else 0.0
        decayed = seen.latency_s * exp((seen.at - now) / self._decay_s)
        return float(decayed * (member.outstanding + 1) / member.share)

    def began(self, member: Any) -> None:
        """Not of interest: ``outstanding`` says it."""

    def ended(self, member: Any, latency_s: float | None) -> None:
        seen = self._seen.get(member)
        if seen is None or latency_s is None:
            return
        now = self._seconds()
        if seen.latency_s < 0:
            seen.latency_s = latency_s
        else:
            kept = exp((seen.at - now) / self._decay_s)
            before = seen.latency_s * kept
            seen.latency_s = latency_s if latency_s > before else before + latency_s * (1.0 - kept)
        seen.at = now
