"""Which route holds for a request: by host, path, and conditions. The cost does not grow with their number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import re2

from lbarray.backends.candidates import Candidates
from lbarray.backends.matching import OPTIONS, Match
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["RouteTable", "normal_path"]

Target = TypeVar("Target")
_UNRESERVED = re.compile(rb"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9AaFf]|6[1-9A-Fa-f]|7[0-9AaEe])")


def normal_path(path: bytes) -> bytes:
    """A path as it is compared: octets that need no encoding are decoded, dot segments are gone.

    What a client writes as ``/%61dmin`` or ``/x/../admin`` is ``/admin`` to most servers, so it must be so to
    the routes: or a route that guards ``/admin`` would be walked around (RFC 3986 §6.2.2, §5.2.4).
    """
    if b"%" in path:
        path = _UNRESERVED.sub(lambda found: bytes((int(found[0][1:], 16),)), path)
    if b"/." in path:
        kept: list[bytes] = []
        segments = path.split(b"/")[1:]
        for segment in segments:
            if segment == b"..":
                if kept:
                    kept.pop()
            elif segment != b".":
                kept.append(segment)
        if segments[-1] in (b".", b".."):
            kept.append(b"")
        path = b"/" + b"/".join(kept)
    return path


class _Node(Generic[Target]):
    """A segment of prefixes. ``here``: routes for ``/a``; ``below``: for ``/a/``."""

    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[Target]] = {}
        self.here: Candidates[Target] | None = None
        self.below: Candidates[Target] | None = None


class _Paths(Generic[Target]):
    """The routes of one host."""

    # Of thousands of hosts each look-up meets another one, in no cache: the fewer places it touches, the better.
    __slots__ = ("_by_pattern", "_depth", "_exact", "_patterns", "_root", "_texts", "always")

    def __init__(self) -> None:
        self._exact: dict[bytes, Candidates[Target]] = {}
        self._root: _Node[Target] = _Node()
        self._depth = 0
        self._patterns: Any = None
        self._texts: dict[str, int] = {}
        self._by_pattern: list[Candidates[Target]] = []
        #: The only route there is, if it holds for every path and has no conditions.
        self.always: Target | None = None

    def add(self, match: Match, target: Target) -> None:
        if match.exact is not None:
            candidates = self._exact.setdefault(match.exact.encode(), Candidates())
        elif match.regex is not None:
            number = self._texts.setdefault(match.regex, len(self._by_pattern))
            if number == len(self._by_pattern):
                self._by_pattern.append(Candidates())
            candidates = self._by_pattern[number]
        else:
            candidates = self._of_prefix(match.path.encode())
        candidates.add(match, target)

    def _of_prefix(self, prefix: bytes) -> Candidates[Target]:
        segments = prefix.split(b"/")[1:]
        below = segments[-1] == b""
        if below:
            segments.pop()
        node = self._root
        for segment in segments:
            node = node.children.setdefault(segment, _Node())
        self._depth = max(self._depth, len(segments))
        if below:
            candidates = node.below = node.below or Candidates()
        else:
            candidates = node.here = node.here or Candidates()
        return candidates

    def _all(self) -> Iterator[Candidates[Target]]:
        yield from self._exact.values()
        yield from self._by_pattern
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            yield from (each for each in (node.here, node.below) if each is not None)

    def compile(self) -> None:
        """All patterns become one automaton: a path is read once, however many there are."""
        for candidates in self._all():
            candidates.compile()
        if self._by_pattern:
            self._patterns = re2.Set.SearchSet(OPTIONS)
            for text in self._texts:
                self._patterns.Add(text.encode())
            self._patterns.Compile()
        elif not self._exact and not self._root.children and self._root.below is not None:
            self.always = self._root.below.always

    def find(self, path: bytes, request: RequestHead, client: ClientAddress) -> Target | None:
        if self.always is not None:
            return self.always
        if self._exact and (candidates := self._exact.get(path)) is not None:
            found = candidates.always or candidates.find(request, client)
            if found is not None:
                return found
        if self._patterns is not None:
            numbers: list[int] = self._patterns.Match(path) or []
            for number in numbers if len(numbers) < 2 else sorted(numbers):
                candidates = self._by_pattern[number]
                found = candidates.always or candidates.find(request, client)
                if found is not None:
                    return found
        return self._longest(path, request, client)

    def _longest(self, path: bytes, request: RequestHead, client: ClientAddress) -> Target | None:
        node = self._root
        if not node.children:
            candidates = node.below
            return None if candidates is None else candidates.always or candidates.find(request, client)
        segments = path.split(b"/", self._depth + 1)
        last = len(segments) - 1
        walked = []
        if last and node.below is not None:
            walked.append(node.below)
        for place in range(1, last + 1):
            following = node.children.get(segments[place])
            if following is None:
                break
            node = following
            if node.here is not None:
                walked.append(node.here)
            if node.below is not None and place < last:
                walked.append(node.below)
        while walked:
            candidates = walked.pop()
            found = candidates.always or candidates.find(request, client)
            if found is not None:
                return found
        return None


class RouteTable(Generic[Target]):
    """The routes of one service, compiled. Of those that hold for a request wins, in this order:

    1. the exact host, then the longest wildcard, then ``*``;
    2. the exact path, then regular expressions in the file's order, then the longest prefix;
    3. the most conditions (method, client network, each header, each query parameter);
    4. the one that stands first.

    Where no route of a more exact host holds, those of less exact ones are looked at.

    :param routes: each with what it leads to, in the file's order.
    :raises ValueError: a regular expression is none.
    """

    def __init__(self, routes: Iterable[tuple[Match, Target]]) -> None:
        self._hosts: dict[bytes, _Paths[Target]] = {}
        self._wild: dict[bytes, _Paths[Target]] = {}
        self._any: _Paths[Target] = _Paths()
        for match, target in routes:
            host = match.host.lower().encode()
            if host == b"*":
                paths = self._any
            elif host.startswith(b"*."):
                paths = self._wild.setdefault(host[2:], _Paths())
            else:
                paths = self._hosts.setdefault(host, _Paths())
            paths.add(match, target)
        for paths in (self._any, *self._hosts.values(), *self._wild.values()):
            paths.compile()
        #: Where everything goes, if it is so: the usual case of a small site, and nothing need be looked at.
        self._everything = self._any.always if not self._hosts and not self._wild else None

    def find(self, request: RequestHead, client: ClientAddress) -> Target | None:
        """What the request's route leads to, ``None`` where no route holds."""
        if self._everything is not None:
            return self._everything
        path = request.target
        if b"?" in path:
            path = path[: path.index(b"?")]
        if path == b"*":  # OPTIONS for the server as a whole (RFC 9112 §3.2.4)
            path = b"/"
        elif b"%" in path or b"/." in path:
            path = normal_path(path)
        host = request.host
        if self._hosts and (paths := self._hosts.get(host)) is not None:
            found = paths.find(path, request, client)
            if found is not None:
                return found
        if self._wild:
            at = host.find(b".")
            while at >= 0:
                paths = self._wild.get(host[at + 1 :])
                if paths is not None and at > 0:
                    found = paths.find(path, request, client)
                    if found is not None:
                        return found
                at = host.find(b".", at + 1)
        return self._any.find(path, request, client)
