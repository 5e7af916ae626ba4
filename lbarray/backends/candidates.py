"""Routes of one host and path, told apart by their conditions: an index where there are many."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, Generic, TypeVar

import attrs

from lbarray.backends.matching import Match, Test, address_of, read_field, read_parameter
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["Candidates"]

Target = TypeVar("Target")
#: Part of a request that routes can be told apart by: ``method``, ``network``, ``header`` or ``query``, with a name.
Part = tuple[str, str]
#: What a request has there. Of networks all that its client may be in.
Reader = Callable[[RequestHead, ClientAddress], Iterable[object]]

#: So few are quicker asked one by one.
FEW: Final = 8
#: Parts looked at for one request, at most, on the way down.
DEEPEST: Final = 8


@attrs.frozen(eq=False)
class _Candidate(Generic[Target]):
    """``order``: the first of several that hold wins."""

    order: int
    match: Match
    tests: tuple[Test, ...]
    target: Target


def _values(match: Match, part: Part) -> tuple[object, ...]:
    """The values of that part that the route can do with; empty where it does not depend on it in this simple way."""
    kind, name = part
    if kind == "method":
        return tuple(method.encode() for method in match.methods)
    if kind == "network":
        return tuple((each.version, each.prefixlen, int(each.network_address)) for each in match.networks)
    tests = match.headers if kind == "header" else match.query
    exact = [test.exact for test in tests if (test.name.lower() if kind == "header" else test.name) == name]
    return tuple(value for value in exact if value is not None)[:1]


def _parts(match: Match) -> set[Part]:
    parts = {("header", test.name.lower()) for test in match.headers if test.exact is not None}
    parts |= {("query", test.name) for test in match.query if test.exact is not None}
    parts |= {("method", "")} if match.methods else set()
    return parts | ({("network", "")} if match.networks else set())


def _reader(part: Part, values: Collection[object]) -> Reader:
    kind, name = part
    if kind == "method":
        return lambda request, client: (request.method,)
    if kind == "network":
        return _networks(values)
    read = read_field(name.encode()) if kind == "header" else read_parameter(name.encode())
    return lambda request, client: (read(request),)


def _networks(values: Iterable[Any]) -> Reader:
    lengths: dict[int, set[int]] = {4: set(), 6: set()}
    for version, length, _ in values:
        lengths[version].add(length)
    shifts = {
        version: tuple((length, (32 if version == 4 else 128) - length) for length in found)
        for version, found in lengths.items()
    }

    def read(request: RequestHead, client: ClientAddress) -> Iterable[object]:
        address = address_of(client.host)
        if address is None:
            return ()
        version, number = address
        return [(version, length, number >> shift << shift) for length, shift in shifts[version]]

    return read


class _OneByOne(Generic[Target]):
    """A few candidates in their order."""

    __slots__ = ("_candidates",)

    def __init__(self, candidates: Iterable[_Candidate[Target]]) -> None:
        self._candidates = tuple(candidates)

    def find(self, request: RequestHead, client: ClientAddress) -> _Candidate[Target] | None:
        for candidate in self._candidates:
            for test in candidate.tests:
                if not test(request, client):
                    break
            else:
                return candidate
        return None


class _Index(Generic[Target]):
    """Candidates by what they want of one part; those that do not depend on it are found apart."""

    __slots__ = ("_by_value", "_read", "_rest")

    def __init__(
        self,
        read: Reader,
        by_value: dict[object, _OneByOne[Target] | _Index[Target]],
        rest: _OneByOne[Target] | _Index[Target],
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


def _compiled(
    candidates: list[_Candidate[Target]], used: frozenset[Part] = frozenset()
) -> _OneByOne[Target] | _Index[Target]:
    """The part that most of them depend on becomes an index, and so on with what is left."""
    if len(candidates) <= FEW or len(used) >= DEEPEST:
        return _OneByOne(candidates)
    counts: dict[Part, int] = {}
    for candidate in candidates:
        for part in _parts(candidate.match) - used:
            counts[part] = counts.get(part, 0) + 1
    for part in sorted(counts, key=lambda part: (-counts[part], part))[:DEEPEST]:
        by_value: dict[object, list[_Candidate[Target]]] = {}
        rest: list[_Candidate[Target]] = []
        for candidate in candidates:
            values = _values(candidate.match, part)
            for value in values:
                by_value.setdefault(value, []).append(candidate)
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
        self._found: _OneByOne[Target] | _Index[Target] = _OneByOne(())
        self.always: Target | None = None

    def add(self, match: Match, target: Target) -> None:
        """One more; before :meth:`compile`."""
        self._added.append((match, target))

    def compile(self) -> None:
        """No more will be added."""
        made = sorted(((match.tests(), match, target) for match, target in self._added), key=lambda each: -len(each[0]))
        candidates = [
            _Candidate(order, match, tuple(tests), target) for order, (tests, match, target) in enumerate(made)
        ]  # sorting is stable: the first of equals stays first
        self._added = []
        self._found = _compiled(candidates)
        self.always = candidates[0].target if not candidates[0].tests else None

    def find(self, request: RequestHead, client: ClientAddress) -> Target | None:
        """The target of the first whose conditions all hold."""
        found = self._found.find(request, client)
        return None if found is None else found.target
