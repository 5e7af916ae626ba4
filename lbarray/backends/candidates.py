"""Routes of one host and path, told apart by their conditions: an index where there are many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs

from lbarray.backends.matching import Match, Part, Test, address_of, read_field, read_parameter
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["Candidates"]

Target = TypeVar("Target")
#: What a request has there. Of networks all that its client may be in.
Reader = Callable[[RequestHead, ClientAddress], Iterable[object]]

#: So few are quicker asked one by one.
FEW: Final = 8
#: Parts looked at for one request, at most, on the way down.
DEEPEST: Final = 8


@attrs.frozen(eq=False)
class _Candidate(Generic[Target]):
    """``order``: the first of several that hold wins. ``tests``: those that no index above it has made already."""

    order: int
    match: Match
    parts: tuple[Part | None, ...]
    tests: tuple[Test, ...]
    target: Target

    def under(self, part: Part) -> _Candidate[Target]:
        """Without the test that an index of this part makes in its place."""
        place = self.parts.index(part)
        return attrs.evolve(
            self,
            parts=(*self.parts[:place], *self.parts[place + 1 :]),
            tests=(*self.tests[:place], *self.tests[place + 1 :]),
        )

    def find(self, request: RequestHead, client: ClientAddress) -> _Candidate[Target] | None:
        """Itself, if it holds."""
        for test in self.tests:
            if not test(request, client):
                return None
        return self


def _values(match: Match, part: Part) -> tuple[object, ...]:
    """The values of that part that the route can do with; empty where it does not depend on it in this simple way."""
    kind, name = part
    if kind == "method":
        return tuple(method.encode() for method in match.methods)
    if kind == "network":
        return tuple(_network(each.version, each.prefixlen, int(each.network_address)) for each in match.networks)
    tests = match.headers if kind == "header" else match.query
    exact = [test.exact for test in tests if (test.name.lower() if kind == "header" else test.name) == name]
    return tuple(value for value in exact if value is not None)[:1]


def _reader(part: Part, values: Collection[object]) -> Reader:
    kind, name = part
    if kind == "method":
        return lambda request, client: (request.method,)
    if kind == "network":
        return _networks(values)
    read = read_field(name.encode()) if kind == "header" else read_parameter(name.encode())
    return lambda request, client: (read(request),)


def _network(version: int, length: int, number: int) -> int:
    """A network in one number."""
    return number << 16 | length << 8 | version


def _networks(values: Iterable[Any]) -> Reader:
    lengths: dict[int, set[int]] = {4: set(), 6: set()}
    for network in values:
        lengths[network & 255].add(network >> 8 & 255)
    shifts = {
        version: tuple(((32 if version == 4 else 128) - length, length << 8 | version) for length in found)
        for version, found in lengths.items()
    }

    def read(request: RequestHead, client: ClientAddress) -> Iterable[object]:
        address = address_of(client.host)
        if address is None:
            return ()
        version, number = address
        return [number >> shift << shift + 16 | last for shift, last in shifts[version]]

    return read


class _Finder(Protocol[Target]):
    def find(self, request: RequestHead, client: ClientAddress) -> _Candidate[Target] | None:
        """The first that holds."""


class _OneByOne(Generic[Target]):
    """A few candidates in their order."""

    __slots__ = ("_candidates",)

    def __init__(self, candidates: Iterable[_Candidate[Target]]) -> None:
        self._candidates = tuple(candidates)

    def find(self, request: RequestHead, client: ClientAddress) -> _Candidate[Target] | None:
        for candidate in self._candidates:
            if candidate.find(request, client) is not None:
                return candidate
        return None


class _Index(Generic[Target]):
    """Candidates by what they want of one part; those that do not depend on it are found apart."""

    __slots__ = ("_by_value", "_read", "_rest")

    def __init__(
        self,
        read: Reader,
        by_value: dict[object, _Finder[Target]],
        rest: _Finder[Target],
    ) -> None:
        self._read = read
        self._by_value = by_value
        self._rest = rest

    def find(self, request: RequestHead, client: ClientAddress) -> _Candidate[Target] | None:
        best = self._rest.find(request, client)
        for value in self._read(request, client):
            some = self._by_value.get(value)
            found = some.find(request, client) if some is not None else None
            if found is not None and (best is None or found.order < best.order):
                best = found
        return best


def _compiled(candidates: list[_Candidate[Target]], used: frozenset[Part] = frozenset()) -> _Finder[Target]:
    """The part that most of them depend on becomes an index, and so on with what is left."""
    if len(candidates) == 1:
        return candidates[0]
    if len(candidates) <= FEW or len(used) >= DEEPEST:
        return _OneByOne(candidates)
    counts: dict[Part, int] = {}
    for candidate in candidates:
        for part in {part for part in candidate.parts if part is not None} - used:
            counts[part] = counts.get(part, 0) + 1
    for part in sorted(counts, key=lambda part: (-counts[part], part))[:DEEPEST]:
        by_value: dict[object, list[_Candidate[Target]]] = {}
        rest: list[_Candidate[Target]] = []
        for candidate in candidates:
            values = _values(candidate.match, part)
            for value in values:
                by_value.setdefault(value, []).append(candidate.under(part))
            if not values:
                rest.append(candidate)
        if 2 * max(map(len, by_value.values())) > len(candidates):
            continue  # it hardly tells them apart
        below = used | {part}
        return _Index(
            _reader(part, by_value.keys()),
            {value: _compiled(some, below) for value, some in by_value.items()},
            _compiled(rest, below),
        )
    return _OneByOne(candidates)


class Candidates(Generic[Target]):
    """Routes of one host and path: the one with the most conditions first, then in the file's order.

    :ivar always: the target of the first, where it has no conditions.
    """

    __slots__ = ("_added", "_found", "always")

    def __init__(self) -> None:
        self._added: list[tuple[Match, Target]] = []
        self._found: _Finder[Target] = _OneByOne(())
        self.always: Target | None = None

    def add(self, match: Match, target: Target) -> None:
        """One more; before :meth:`compile`."""
        self._added.append((match, target))

    def compile(self) -> None:
        """No more will be added."""
        made = sorted(
            ((match.conditions(), match, target) for match, target in self._added), key=lambda each: -len(each[0])
        )  # sorting is stable: the first of equals stays first
        candidates = [
            _Candidate(
                order, match, tuple(part for part, _ in conditions), tuple(test for _, test in conditions), target
            )
            for order, (conditions, match, target) in enumerate(made)
        ]
        self._added = []
        self._found = _compiled(candidates)
        self.always = candidates[0].target if not candidates[0].tests else None

    def find(self, request: RequestHead, client: ClientAddress) -> Target | None:
        """The target of the first whose conditions all hold."""
        found = self._found.find(request, client)
        return None if found is None else found.target
