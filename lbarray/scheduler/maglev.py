"""Maglev hashing (Eisenbud et al., NSDI 2016, §3.4): which worker each row of the table belongs to.

Both loops over all rows exist twice: compiled (``_rows.c``: about a millisecond, which a reactor that also keeps
VRRP's time can spare) and in Python for machines without a compiler (about 20 times that). They give the same table.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence

import attrs

from lbarray.extensions import not_used

__all__ = [
    "DEFAULT_SIZE",
    "NOBODY",
    "Weighted",
    "build_table",
    "compiled",
    "fill",
    "join",
    "join_rows",
    "merge",
    "merge_table",
]

#: The paper's size for everyday use: prime, and over 100 rows a worker for up to 655 of them.
DEFAULT_SIZE = 65537
#: What no worker is called by: a row that was never given.
NOBODY = 0xFFFF


@attrs.frozen
class Weighted:
    """A worker by name, with its share against the others'. ``weight`` is above 0."""

    name: str
    weight: int = 100


def _number(name: str, use: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8, person=use).digest(), "big")


def fill(offsets: array[int], skips: array[int], weights: array[int], rows: array[int]) -> None:
    """Fill ``rows`` (unsigned 16 bits) with the places of workers, whose numbers are unsigned, of 32 bits.

    Offsets are below the number of rows, skips too and above 0, as weights are; all of one length.
    """
    size, heaviest = len(rows), max(weights)
    position, credit = offsets[:], [0] * len(offsets)
    taken = [NOBODY] * size
    left = size
    while True:
        for place, weight in enumerate(weights):
            # Lighter workers take a turn only when they have saved up for one.
            credit[place] += weight
            if credit[place] < heaviest:
                continue
            credit[place] -= heaviest
            row, step = position[place], skips[place]
            while taken[row] != NOBODY:
                row += step
                if row >= size:
                    row -= size
            taken[row] = place
            position[place] = (row + step) % size
            left -= 1
            if not left:
                rows[:] = array("H", taken)
                return


def merge(table: array[int], indices: array[int], dead: array[int], rows: array[int]) -> int:
    """Make ``rows`` (now, and three before; now, …) say what ``table`` says; how many rows changed.

    Every place in the table has an index, and ``rows`` is four times as long as the table. Former owners are
    different from each other and from the present one, the newest first, and none of ``dead``.
    """
    changed = 0
    gone = {*dead, NOBODY}
    for row, place in enumerate(table):
        index = indices[place]
        if rows[4 * row] == index and not dead:  # most rows of most changes
            continue
        old = rows[4 * row : 4 * row + 4]
        kept = [owner for owner in old if owner != index and owner not in gone]
        new = array("H", [index, *kept, NOBODY, NOBODY, NOBODY][:4])
        if new != old:
            rows[4 * row : 4 * row + 4] = new
            changed += 1
    return changed


def join(theirs: array[int], dead: array[int], rows: array[int]) -> None:
    """Give ``rows`` the history of other rows besides their own. Who has them now stays; behind come all former owners,
    the newest first, of two that are equally old the one of the lower index, and none of ``dead``."""
    gone = {*dead, NOBODY}
    for row in range(0, len(rows), 4):
        joined = [rows[row]]
        for pair in zip(rows[row : row + 4], theirs[row : row + 4], strict=True):
            joined += [owner for owner in sorted({*pair}) if owner not in joined and owner not in gone]
        rows[row : row + 4] = array("H", [*joined, NOBODY, NOBODY, NOBODY][:4])


_fill: Callable[[array[int], array[int], array[int], array[int]], None] = fill
_merge: Callable[[array[int], array[int], array[int], array[int]], int] = merge
_join: Callable[[array[int], array[int], array[int]], None] = join
#: Are the compiled loops in use?
compiled = False
try:
    from lbarray.scheduler import _rows

    _fill, _merge, _join, compiled = _rows.fill, _rows.merge, _rows.join, True
except (ImportError, AttributeError) as error:
    not_used("lbarray.scheduler._rows", error)


def build_table(workers: Sequence[Weighted], size: int = DEFAULT_SIZE) -> array[int]:
    """For each row the place of its worker in ``workers`` sorted by name; unsigned numbers of 16 bits.

    The same set of workers gives the same table everywhere, whatever its order, and a change of one
    worker moves few rows of the others.

    :param size: prime, and many times the number of workers.
    :raises ValueError: no workers, more than rows, or a weight below 1.
    """
    ranked = sorted(workers, key=lambda worker: worker.name)
    if not 0 < len(ranked) <= min(size, NOBODY - 1):
        raise ValueError(f"{len(ranked)} workers for {size} rows")
    if min(worker.weight for worker in ranked) < 1:
        raise ValueError("a weight below 1")
    rows = array("H", bytes(2 * size))
    _fill(
        array("I", [_number(worker.name, b"offset") % size for worker in ranked]),
        array("I", [_number(worker.name, b"skip") % (size - 1) + 1 for worker in ranked]),
        array("I", [worker.weight for worker in ranked]),
        rows,
    )
    return rows


def merge_table(table: array[int], indices: Sequence[int], dead: Sequence[int], rows: array[int]) -> int:
    """:func:`merge`, compiled where it can be. ``indices``: the stable number of each place of the table."""
    return _merge(table, array("H", indices), array("H", dead), rows)


def join_rows(theirs: array[int], dead: Sequence[int], rows: array[int]) -> None:
    """:func:`join`, compiled where it can be."""
    _join(theirs, array("H", dead), rows)
