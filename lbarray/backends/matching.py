"""What a route asks of a request: host, path, and conditions beyond these."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

import attrs
import re2

from lbarray.backends.keys import parameter
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["OPTIONS", "FieldTest", "Match", "Part", "Test", "address_of", "pattern", "read_field", "read_parameter"]

Test = Callable[[RequestHead, ClientAddress], bool]
#: Part of a request that routes can be told apart by: ``method``, ``network``, ``header`` or ``query``, with a name.
Part = tuple[str, str]

OPTIONS = re2.Options()
OPTIONS.encoding = re2.Options.Encoding.LATIN1  # a path is octets, and one octet is one character
OPTIONS.log_errors = False
OPTIONS.max_mem = 64 << 20


def pattern(text: str) -> Any:
    """A compiled regular expression over octets, of an engine that is linear in its input (RE2).

    :raises ValueError: it is none, or has what RE2 has not (look-around, back-references).
    """
    try:
        return re2.compile(text.encode(), OPTIONS)
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

    @property
    def exact(self) -> bytes | None:
        """The one value that will do, where it is known beforehand."""
        value = self.value
        return None if value is None or not self.present or value.startswith("~") else value.encode()

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

    def conditions(self) -> list[tuple[Part | None, Test]]:
        """What it asks for beyond host and path, the cheapest first, each with the part that an index may go by."""
        conditions: list[tuple[Part | None, Test]] = []
        if self.methods:
            methods = frozenset(method.encode() for method in self.methods)
            conditions.append((("method", ""), lambda request, client: request.method in methods))
        if self.networks:
            conditions.append((("network", ""), _from(self.networks)))
        for each in self.headers:
            name = each.name.lower()
            part = None if each.exact is None else ("header", name)
            conditions.append((part, each.of(read_field(name.encode()))))
        for each in self.query:
            part = None if each.exact is None else ("query", each.name)
            conditions.append((part, each.of(read_parameter(each.name.encode()))))
        return conditions


def read_field(name: bytes) -> Callable[[RequestHead], bytes | None]:
    """Reads the first field of a lower-case name."""
    return lambda request: request.get(name)


def read_parameter(name: bytes) -> Callable[[RequestHead], bytes | None]:
    """Reads a parameter of the query."""

    def read(request: RequestHead) -> bytes | None:
        query = request.target.partition(b"?")[2]
        if name not in query:
            return None
        names = {pair.partition(b"=")[0] for pair in query.split(b"&")}
        return parameter(b"?" + query, name) if name in names else None

    return read


@lru_cache(maxsize=65536)
def address_of(host: str) -> tuple[int, int] | None:
    """A client's address as version and number; IPv4 where IPv6 only wraps it; ``None`` for what is no address."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if address.version == 6:
        address = address.ipv4_mapped or address
    return address.version, int(address)


def _from(networks: Sequence[IPv4Network | IPv6Network]) -> Test:
    shifted = [(each, each.max_prefixlen - each.prefixlen) for each in networks]
    wanted = tuple((each.version, shift, int(each.network_address) >> shift) for each, shift in shifted)

    def test(request: RequestHead, client: ClientAddress) -> bool:
        address = address_of(client.host)
        if address is not None:
            version, number = address
            for family, shift, network in wanted:
                if family == version and number >> shift == network:
                    return True
        return False

    return test
