"""What of a request says where it belongs: URL, host, client, a header, a cookie, a parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address

from lbarray.http.cookies import cookie_values
from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["KeyReader", "address_key", "key_reader", "parameter"]

#: The octets that a request is known by; empty where it has none.
KeyReader = Callable[[RequestHead, ClientAddress], bytes]


@lru_cache(maxsize=65536)
def address_key(host: str, prefix4: int, prefix6: int) -> bytes:
    """The network that a client's address is in, packed; what is no address stands for itself."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host.encode()
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    bits, prefix = (32, prefix4) if address.version == 4 else (128, prefix6)
    masked = int(address) >> (bits - prefix) << (bits - prefix)
    return masked.to_bytes(bits // 8, "big")


def parameter(target: bytes, name: bytes) -> bytes:
    """The value of a parameter in the query (``?name=…``) or in the path (``;name=…``); empty where there is none."""
    path, _, query = target.partition(b"?")
    if name in query:
        for pair in query.split(b"&"):
            key, _, value = pair.partition(b"=")
            if key == name:
                return value
    if b";" in path and name in path:
        for segment in path.split(b"/"):
            for pair in segment.split(b";")[1:]:
                key, _, value = pair.partition(b"=")
                if key == name:
                    return value
    return b""


def key_reader(by: str, *, prefix4: int = 32, prefix6: int = 64) -> KeyReader:
    """How to read the key that a configuration names.

    :param by: ``url``, ``path``, ``host``, ``client``, ``header:NAME``, ``cookie:NAME`` or ``query:NAME``
        (which finds the parameter in the path too).
    :param prefix4: clients of one IPv4 network of this length have one key; ``prefix6`` likewise.
    :raises ValueError: none of these.
    """
    kind, _, name = by.partition(":")
    octets = name.encode()
    if kind == "header" and name:
        lower = octets.lower()
        return lambda request, client: request.get(lower) or b""
    if kind == "cookie" and name:

        def cookie(request: RequestHead, client: ClientAddress) -> bytes:
            values = cookie_values(request, octets)
            return values[0] if values else b""

        return cookie
    if kind == "query" and name:
        return lambda request, client: parameter(request.target, octets)
    plain: dict[str, KeyReader] = {
        "url": lambda request, client: request.host + request.target,
        "path": lambda request, client: request.path,
        "host": lambda request, client: request.host,
        "client": lambda request, client: address_key(client.host, prefix4, prefix6),
    }
    try:
        return plain[by]
    except KeyError:
        raise ValueError(by) from None
