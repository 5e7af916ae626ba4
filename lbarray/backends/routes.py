"""Which route holds for a request: by host, path, and conditions. The cost does not grow with their number."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Generic, TypeVar

import attrs
import re2

from lbarray.backends.keys import parameter
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["FieldTest", "Match", "RouteTable", "normal_path", "pattern"]

Target = TypeVar("Target")
Test = Callable[[RequestHead, ClientAddress], bool]

_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1  # a path is octets, and one octet is one character
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 64 << 20


def pattern(text: str) -> Any:
    """A compiled regular expression over octets, of an engine that is linear in its input (RE2).

    :raises ValueError: it is none, or has what RE2 has not (look-around, back-references).
    """
    try:
        return re2.compile(text.encode(), _OPTIONS)
    except re2.error as error:
        raise ValueError(str(error)) from None


@attrs.frozen
class FieldTest:
    """A condition on a header field or a query parameter.

    :ivar value: what it must be; ``~`` and a regular expression that must be found in it; ``None``: any.
    :ivar present: false: it must not be there at all.
    """

    name: str
    value: str | None = None
    present: bool = True

    def of(self, read: Callable[[RequestHead], bytes | None]) -> Test:
        """The condition on what ``read`` finds."""
        value = self.value
        if not self.present:
            return lambda request, client: read(request) is None
        if value is None:
            return lambda request, client: read(request) is not None
        if value.startswith("~"):
            search = pattern(value[1:]).search

            def found(request: RequestHead, client: ClientAddress) -> bool:
                octets = read(request)
                return octets is not None and search(octets) is not None

            return found
        wanted = value.encode()
        return lambda request, client: read(request) == wanted


@attrs.frozen(kw_only=True)
class Match:
    """Which requests a route is for.

    :ivar host: a name, ``*.example.net`` (any number of labels before it) or ``*``; lower case.
    :ivar path: a prefix that ends at a segment: ``/shop`` holds for ``/shop`` and ``/shop/x``, not ``/shopping``.
    :ivar exact: the whole path instead; :ivar regex: found in the path instead.
    :ivar methods: one of them; none means any. :ivar networks: of the client, likewise.
    :ivar headers: all of them; :ivar query: likewise.
    """

    host: str = "*"
    path: str = "/"
    exact: str | None = None
    regex: str | None = None
    methods: tuple[str, ...] = ()
    headers: tuple[FieldTest, ...] = ()
    query: tuple[FieldTest, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def tests(self) -> list[Test]:
        """Its conditions beyond host and path, the cheapest first."""
        tests: list[Test] = []
        if self.methods:
            methods = frozenset(method.encode() for method in self.methods)
            tests.append(lambda request, client: request.method in methods)
        if self.networks:
            tests.append(_from(self.networks))
        for each in self.headers:
            tests.append(each.of(_header(each.name.lower().encode())))
        for each in self.query:
            tests.append(each.of(_parameter(each.name.encode())))
        return tests


def _header(name: bytes) -> Callable[[RequestHead], bytes | None]:
    return lambda request: request.get(name)


def _parameter(name: bytes) -> Callable[[RequestHead], bytes | None]:
    def read(request: RequestHead) -> bytes | None:
        query = request.target.partition(b"?")[2]
        if name not in query:
            return None
        names = {pair.partition(b"=")[0] for pair in query.split(b"&")}
        return parameter(b"?" + query, name) if name in names else None

    return read


@lru_cache(maxsize=65536)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if address.version == 6 else address


def _from(networks: Iterable[IPv4Network | IPv6Network]) -> Test:
    wanted = tuple(networks)

    def test(request: RequestHead, client: ClientAddress) -> bool:
        address = _address(client.host)
        return address is not None and any(address in network for network in wanted)

    return test


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


class _Candidates(Generic[Target]):
    """Routes of one host and path: the one with the most conditions first, then in the file's order."""

    __slots__ = ("_routes", "always")

    def __init__(self) -> None:
        self._routes: list[tuple[tuple[Test, ...], Target]] = []
        #: The only one, where it has no conditions.
        self.always: Target | None = None

    def add(self, tests: Sequence[Test], target: Target) -> None:
        self._routes.append((tuple(tests), target))
        self._routes.sort(key=lambda route: -len(route[0]))  # stable: the first of equals stays first
        self.always = None if self._routes[0][0] else self._routes[0][1]

    def find(self, request: RequestHead, client: ClientAddress) -> Target | None:
        for tests, target in self._routes:
            for test in tests:
                if not test(request, client):
                    break
            else:
                return target
        return None


class _Node(Generic[Target]):
    """A segment of prefixes. ``here``: routes for ``/a``; ``below``: for ``/a/``."""

    __slots__ = ("below", "children", "here")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[Target]] = {}
        self.here: _Candidates[Target] | None = None
        self.below: _Candidates[Target] | None = None


class _Paths(Generic[Target]):
    """The routes of one host."""

    def __init__(self) -> None:
        self._exact: dict[bytes, _Candidates[Target]] = {}
        self._root: _Node[Target] = _Node()
        self._depth = 0
        self._patterns: Any = None
        self._by_pattern: list[tuple[str, _Candidates[Target]]] = []

    def add(self, match: Match, target: Target) -> None:
        tests = match.tests()
        if match.exact is not None:
            self._exact.setdefault(match.exact.encode(), _Candidates()).add(tests, target)
        elif match.regex is not None:
            for text, candidates in self._by_pattern:
                if text == match.regex:
                    candidates.add(tests, target)
                    return
            candidates = _Candidates()
            candidates.add(tests, target)
            self._by_pattern.append((match.regex, candidates))
        else:
            self._add_prefix(match.path.encode(), tests, target)

    def _add_prefix(self, prefix: bytes, tests: Sequence[Test], target: Target) -> None:
        segments = prefix.split(b"/")[1:]
        below = segments[-1] == b""
        if below:
            segments.pop()
        node = self._root
        for segment in segments:
            node = node.children.setdefault(segment, _Node())
        self._depth = max(self._depth, len(segments))
        if below:
            candidates = node.below = node.below or _Candidates()
        else:
            candidates = node.here = node.here or _Candidates()
        candidates.add(tests, target)

    def compile(self) -> None:
        """All patterns become one automaton: a path is read once, however many there are."""
        if self._by_pattern:
            self._patterns = re2.Set.SearchSet(_OPTIONS)
            for text, _ in self._by_pattern:
                self._patterns.Add(text.encode())
            self._patterns.Compile()

    def everything(self) -> Target | None:
        """The only route there is, if it holds for every path and has no conditions."""
        root = self._root
        if self._exact or self._by_pattern or root.children or root.below is None:
            return None
        return root.below.always

    def find(self, path: bytes, request: RequestHead, client: ClientAddress) -> Target | None:
        if self._exact and (candidates := self._exact.get(path)) is not None:
            found = candidates.always or candidates.find(request, client)
            if found is not None:
                return found
        if self._patterns is not None:
            numbers: list[int] = self._patterns.Match(path) or []
            for number in sorted(numbers):
                candidates = self._by_pattern[number][1]
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
        self._everything = self._any.everything() if not self._hosts and not self._wild else None

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
