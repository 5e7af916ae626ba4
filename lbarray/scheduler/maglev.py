"""Maglev hashing (Eisenbud et al., NSDI 2016, §3.4): which worker each row of the table belongs to."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import attrs

__all__ = ["DEFAULT_SIZE", "Weighted", "build_table"]

#: A prime well over 100 rows per worker for arrays of up to 160 nodes, yet built in some tens of milliseconds.
DEFAULT_SIZE = 16381


@attrs.frozen
class Weighted:
    """A worker by name, with its share against the others'. ``weight`` is above 0."""

    name: str
    weight: int = 100


def _number(name: str, use: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=use).digest(), "big")


def build_table(workers: Sequence[Weighted], size: int = DEFAULT_SIZE) -> array[int]:
    """For each row the place of its worker in ``workers`` sorted by name.

    The same set of workers gives the same table everywhere, whatever its order, and a change of one
    worker moves few rows of the others.

    :param size: prime, and many times the number of workers.
    :raises ValueError: no workers, more than rows, or a weight below 1.
    """
    ranked = sorted(workers, key=lambda worker: worker.name)
    if not 0 < len(ranked) <= size:
        raise ValueError(f"{len(ranked)} workers for {size} rows")
    if min(worker.weight for worker in ranked) < 1:
        raise ValueError("a weight below 1")
    heaviest = max(worker.weight for worker in ranked)
    position = [_number(worker.name, b"offset") % size for worker in ranked]
    skip = [_number(worker.name, b"skip") % (size - 1) + 1 for worker in ranked]
    credit = [0] * len(ranked)
    table = array("i", [-1]) * size
    left = size
    while True:
        for place, worker in enumerate(ranked):
            # Lighter workers take a turn only when they have saved up for one.
            credit[place] += worker.weight
            if credit[place] < heaviest:
                continue
            credit[place] -= heaviest
            row, step = position[place], skip[place]
            while table[row] >= 0:
                row = (row + step) % size
            table[row] = place
            position[place] = (row + step) % size
            left -= 1
            if not left:
                return table
