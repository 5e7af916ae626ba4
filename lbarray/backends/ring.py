"""A ring of hashed points: who owns a key, and who would be next (Karger et al. 1997)."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from math import ceil
from typing import Any

__all__ = ["Ring", "hashed"]

#: Points of the lightest member, and of all members together.
POINTS = 160
MOST_POINTS = 200_000


def hashed(key: bytes, seed: bytes) -> int:
    """Where a key stands: 64 bits, the same on every node that has the ``seed`` (up to 64 octets)."""
    return int.from_bytes(blake2b(key, digest_size=8, key=seed).digest(), "big")


class Ring:
    """Owners by key. Coming and going of one name moves only keys to it and from it.

    :param weights: points are by weight.
    :param seed: secret of the array, so that nobody outside can say which keys meet.
    """

    def __init__(self, weights: Mapping[str, float], seed: bytes) -> None:
        lightest = min(weights.values(), default=1.0)
        total = sum(weights.values()) / lightest
        each = min(POINTS, max(1.0, MOST_POINTS / max(total, 1.0)))
        points: list[tuple[int, str]] = []
        for name, weight in weights.items():
            wanted = ceil(each * weight / lightest)
            # One hash of 64 octets is eight points.
            for block in range(0, wanted, 8):
                octets = blake2b(f"{name}\0{block}".encode(), key=seed).digest()
                points += [
                    (int.from_bytes(octets[at : at + 8], "big"), name) for at in range(0, 8 * min(8, wanted - block), 8)
                ]
        points.sort()
        self.points = [point for point, _ in points]
        self.owners: list[Any] = [name for _, name in points]

    def __len__(self) -> int:
        return len(self.points)

    def stand_for(self, members: Mapping[str, Any]) -> None:
        """Put objects where the names are, so that no look-up is needed later."""
        self.owners = [members[name] for name in self.owners]

    def place(self, position: int) -> int:
        """The index in ``owners`` that a hashed key falls to. The ring must have points."""
        return bisect(self.points, position) % len(self.points)

    def walk(self, position: int) -> Iterator[Any]:
        """Owners from a hashed key on, each once for every point it has."""
        owners: Sequence[Any] = self.owners
        start = self.place(position) if owners else 0
        for step in range(len(owners)):
            yield owners[(start + step) % len(owners)]
