"""The same key to the same back end, until that has too much."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from typing import Any

from zope.interface import implementer

from lbarray.backends.ring import Ring, hashed
from lbarray.interfaces import IBalancePolicy
from lbarray.plugin import PolicySettings

__all__ = ["ConsistentHash"]


@implementer(IBalancePolicy)
class ConsistentHash:
    """Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016).

    Choose it where back ends cache what they serve, by URL, header, cookie or client address (``hash_by``). No
    member has more than ``1 + slack`` times its part of the requests in hand (rounded up): what is above goes
    to the next on the ring, so one hot URL spills over instead of melting its back end. The smaller the
    slack, the evener the load and the colder the caches.

    The ring is of all members, fit or not: when one falls ill only its own keys move, and they come back.
    Requests without a key go anywhere.
    """

    follows = True

    def __init__(self, settings: PolicySettings) -> None:
        self._random = settings.chance.random
        self._seed = settings.seed[:64]
        self._room = 1.0 + settings.slack
        self._ring: Ring = Ring({}, self._seed)
        self._made_of: dict[str, int] = {}
        self._members: list[Any] = []
        self._fit: set[Any] = set()
        self._shares = 1.0
        self._outstanding = 0

    def update(self, members: Sequence[Any], fit: Sequence[Any]) -> None:
        weights = {member.address.name: member.weight for member in members}
        if weights != self._made_of or self._members != list(members):
            self._ring = Ring(weights, self._seed)
            self._ring.stand_for({member.address.name: member for member in members})
            self._made_of = weights
            self._members = list(members)
        self._fit = set(fit)
        self._shares = sum(member.share for member in fit) or 1.0
        # Those that are not fit any more may still have requests in hand, which are nobody's load here.
        self._outstanding = sum(member.outstanding for member in fit)

    def choose(self, key: bytes, avoid: Collection[Any]) -> Any | None:
        fit = self._fit
        if not fit:
            return None
        owners = self._ring.owners
        position = hashed(key, self._seed) if key else int(self._random() * (1 << 64))
        place = bisect(self._ring.points, position)
        # (1 + slack) * average, for one request more than there are: c in the paper's section 2.
        room = self._room * (self._outstanding + 1) / self._shares
        count = len(owners)
        for step in range(place, place + count):
            member = owners[step if step < count else step - count]
            if member in fit and member.outstanding < room * member.share and not (avoid and member in avoid):
                return member
        for step in range(place, place + count):
            member = owners[step if step < count else step - count]
            if member in fit and member not in avoid:
                return member
        return None

    def began(self, member: Any) -> None:
        if member in self._fit:
            self._outstanding += 1

    def ended(self, member: Any, latency_s: float | None) -> None:
        if member in self._fit:
            self._outstanding -= 1
