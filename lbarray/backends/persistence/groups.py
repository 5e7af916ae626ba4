"""Clients by hash group: a table that is the same on every node and has one size, however many clients there are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from zope.interface import implementer

from lbarray.backends.keys import KeyReader
from lbarray.backends.ring import Ring, hashed
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IPersistence
from lbarray.values import ClientAddress

__all__ = ["GroupPersistence"]

NEVER = float("-inf")
#: Of the ring that groups are placed by: made once for many requests, so it may be finer than a policy's.
POINTS, MOST_POINTS = 1024, 65536


@implementer(IPersistence)
class GroupPersistence:
    """The key space is cut into groups, and each group belongs to a member.

    Which one follows from the members' names and weights and from who serves, and from nothing else: every
    node computes the same table. A member that falls ill loses its groups to the next on the ring and has
    them back when it is well; no other group moves.

    While a member drains, groups that somebody uses stay with it. Those that nobody has used for ``idle_s``
    go to others; what other nodes use is told by :meth:`used_elsewhere`.

    :param key_of: the key of a request; one without goes by the policy.
    :param groups: a power of two keeps parts even; more make the load evener and the table larger.
    :param seed: the same on every node.
    """

    def __init__(
        self,
        *,
        key_of: KeyReader,
        seed: bytes,
        seconds: Callable[[], float],
        groups: int = 8192,
        idle_s: float = 600.0,
    ) -> None:
        self._key_of = key_of
        self._seed = seed[:64]
        self._seconds = seconds
        self._idle_s = idle_s
        self._ring = Ring({}, self._seed)
        self._made_of: dict[str, int] = {}
        self._positions = [hashed(b"group %d" % number, self._seed) for number in range(groups)]
        #: Of each group: where it stands on the ring, and whose it is when all are well.
        self._places: list[int] = []
        self._first: list[str] = []
        self._used = [NEVER] * groups
        self._used_here = [NEVER] * groups
        self._members: Sequence[Any] = ()
        self._serving: Collection[Any] = ()
        self.table: list[Any | None] = [None] * groups

    def update(self, members: Sequence[Any], serving: Collection[Any]) -> None:
        weights = {member.address.name: member.weight for member in members}
        if weights != self._made_of:
            self._ring = Ring(weights, self._seed, points=POINTS, most=MOST_POINTS)
            self._made_of = weights
            self._places = [self._ring.place(position) for position in self._positions] if weights else []
            self._first = [self._ring.owners[place] for place in self._places]
        self._members = members
        self._serving = frozenset(serving)
        self._assign(self._seconds())

    def _assign(self, now: float) -> bool:
        before = self.table
        serving = {member.address.name: member for member in self._members if member in self._serving}
        for_all = {name: member for name, member in serving.items() if not member.draining}
        table: list[Any | None] = [for_all.get(name) for name in self._first] or [None] * len(self._positions)
        if len(for_all) < len(self._members):
            late = now - self._idle_s
            # The next on the ring: of those that serve for a group in use, else of those that do not drain.
            next_serving, next_for_all = _Next(self._ring, serving), _Next(self._ring, for_all)
            for group, owner in enumerate(table):
                if owner is None:
                    following = next_serving if self._used[group] > late else next_for_all
                    table[group] = following.at(self._places[group])
        self.table = table
        return table != before

    def group_of(self, key: bytes) -> int:
        """The group that a key is in."""
        return hashed(key, self._seed) % len(self._positions)

    def find(self, request: RequestHead, client: ClientAddress) -> tuple[Any | None, bytes]:
        key = self._key_of(request, client)
        if not key:
            return None, b""
        group = self.group_of(key)
        self._used[group] = self._used_here[group] = self._seconds()
        return self.table[group], b""

    def knows(self, request: RequestHead, client: ClientAddress) -> bool:
        """Nobody in particular: every key has its group, whether it was here or not."""
        return False

    def answered(self, member: Any, found: bool, mark: bytes, response: ResponseHead, secure: bool) -> None:
        """Nothing to remember: the key says it."""

    def tick(self, now: float) -> bool:
        """Move idle groups away from draining members; true when some have moved."""
        return any(member.draining for member in self._members) and self._assign(now)

    # Between nodes, while a member drains

    def used_here(self, now: float) -> bytes:
        """One bit for each group that this node has used within ``idle_s``."""
        late = now - self._idle_s
        bits = 0
        for group, used in enumerate(self._used_here):
            if used > late:
                bits |= 1 << group
        return bits.to_bytes(len(self._positions) // 8 + 1, "big")

    def used_elsewhere(self, octets: bytes, now: float) -> None:
        """What another node's :meth:`used_here` said; of another size, it is ignored."""
        if len(octets) != len(self._positions) // 8 + 1:
            return
        bits = int.from_bytes(octets, "big")
        for group in range(len(self._used)):
            if bits >> group & 1:
                self._used[group] = now


class _Next:
    """Finds the next on a ring that is one of ``members`` (by name), however few these are."""

    def __init__(self, ring: Ring, members: Mapping[str, Any]) -> None:
        self._owners = ring.owners
        self._members = members
        self._places = [place for place, name in enumerate(ring.owners) if name in members]

    def at(self, place: int) -> Any | None:
        """From this place of the ring on; ``None`` when there is nobody."""
        places = self._places
        if not places:
            return None
        return self._members[self._owners[places[bisect_left(places, place) % len(places)]]]
