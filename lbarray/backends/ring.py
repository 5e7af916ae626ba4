"""A ring of hashed points: who owns a key, and who would be next (Karger et al. 1997)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from hashlib import blake2b
from math import ceil
from struct import Struct
from typing import Any

__all__ = ["Ring", "hashed"]

#: Points of the lightest member, and of all members together.
POINTS = 160
MOST_POINTS = 200_000
_EIGHT = Struct(">8Q")
_PLACE_BITS = 24
_PLACE = (1 << _PLACE_BITS) - 1


def hashed(key: bytes, seed: bytes) -> int:
    """Where a key stands: 64 bits, the same on every node that has the ``seed`` (up to 64 octets)."""
    return int.from_bytes(blake2b(key, digest_size=8, key=seed).digest(), "big")


class Ring:
    """Owners by key. Coming and going of one name moves only keys to it and from it.

    :param weights: points are by weight; ``points`` of the lightest, unless that makes more than ``most`` in all. The
        more, the evener, and the longer it takes to make: a quarter of a second for 200,000.
    :param seed: secret of the array, so that nobody outside can say which keys meet.
    """

    def __init__(
        self, weights: Mapping[str, float], seed: bytes, *, points: int = POINTS, most: int = MOST_POINTS
    ) -> None:
        lightest = min(weights.values(), default=1.0)
        total = sum(weights.values()) / lightest
        each = min(points, max(1.0, most / max(total, 1.0)))
        names = list(weights)
        # A point and whose it is in one number: these are sorted much faster than pairs.
        marked: list[int] = []
        for place, (name, weight) in enumerate(weights.items()):
            wanted = ceil(each * weight / lightest)
            own: list[int] = []
            # One hash of 64 octets is eight points.
            for block in range(0, wanted, 8):
                own += _EIGHT.unpack(blake2b(f"{name}\0{block}".encode(), key=seed).digest())
            marked += [point << _PLACE_BITS | place for point in own[:wanted]]
        marked.sort()
        self.points = [point >> _PLACE_BITS for point in marked]
        self.owners: list[Any] = [names[point & _PLACE] for point in marked]

    def __len__(self) -> int:
        return len(self.points)

    def stand_for(self, members: Mapping[str, Any]) -> None:
        """Put objects where the names are, so that no look-up is needed later."""
        self.owners = [members[name] for name in self.owners]

    def place(self, position: int) -> int:
        """The index in ``owners`` that a hashed key falls to. The ring must have points."""
        return bisect(self.points, position) % len(self.points)
