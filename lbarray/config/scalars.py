"""The single values a configuration may hold: each reads what TOML gave, or says what it would accept.

``Annotated[int, Accepts(...)]`` ties a Python type to its reader, so that the model's classes stay plain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from pathlib import Path
from typing import Annotated

import attrs
import re2

__all__ = [
    "HOST_PORT",
    "NAME",
    "Accepts",
    "FieldName",
    "FieldTestValue",
    "FieldText",
    "Flag",
    "HashKey",
    "HostPattern",
    "HostPort",
    "HostPortText",
    "Interface",
    "IpAddress",
    "Name",
    "NetworkText",
    "PathPrefix",
    "PathText",
    "Pattern",
    "Port",
    "Rejected",
    "Seconds",
    "SecondsOrZero",
    "Text",
    "at_least_s",
    "between",
    "number",
    "one_of",
    "prime",
]


class Rejected(ValueError):
    """This value will not do. ``accepted`` says in words what would."""

    def __init__(self, found: object, accepted: str) -> None:
        super().__init__(found, accepted)
        self.found = found
        self.accepted = accepted


@attrs.frozen
class Accepts:
    """How to read one scalar.

    :ivar read: takes what TOML gave and returns the value, or raises :class:`ValueError`.
    :ivar words: what is accepted, for the operator.
    """

    read: Callable[[object], object]
    words: str

    def __call__(self, found: object) -> object:
        """:raises Rejected: ``found`` is not acceptable."""
        try:
            return self.read(found)
        except (ValueError, TypeError):
            raise Rejected(found, self.words) from None


def _string(found: object) -> str:
    if not isinstance(found, str) or not found:
        raise ValueError(found)
    return found


def _flag(found: object) -> bool:
    if not isinstance(found, bool):
        raise ValueError(found)
    return found


def _whole(low: int, high: int) -> Callable[[object], int]:
    def read(found: object) -> int:
        if isinstance(found, bool) or not isinstance(found, int) or not low <= found <= high:
            raise ValueError(found)
        return found

    return read


def between(low: int, high: int) -> Accepts:
    """A whole number, both ends included."""
    return Accepts(_whole(low, high), f"a whole number from {low} to {high}")


def prime(low: int, high: int) -> Accepts:
    """A prime number, both ends included."""
    whole = _whole(low, high)

    def read(found: object) -> int:
        value = whole(found)
        if value < 2 or any(value % divisor == 0 for divisor in range(2, math.isqrt(value) + 1)):
            raise ValueError(found)
        return value

    return Accepts(read, f"a prime number from {low} to {high}, such as 65537")


def number(low: float, high: float) -> Accepts:
    """A number, whole or not, both ends included."""

    def read(found: object) -> float:
        if isinstance(found, bool) or not isinstance(found, int | float) or not low <= found <= high:
            raise ValueError(found)
        return float(found)

    return Accepts(read, f"a number from {low:g} to {high:g}")


def one_of(*words: str | int) -> Accepts:
    """One of these strings, or of these numbers."""

    def read(found: object) -> str | int:
        if found not in words or isinstance(found, bool) or not isinstance(found, str | int):
            raise ValueError(found)
        return found

    return Accepts(read, "one of " + ", ".join(f'"{word}"' if isinstance(word, str) else str(word) for word in words))


_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)\Z")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(found: object) -> float:
    if isinstance(found, bool):
        raise ValueError(found)
    if isinstance(found, int | float):
        value = float(found)
    else:
        match = _DURATION.match(_string(found))
        if match is None:
            raise ValueError(found)
        value = float(match[1]) * _UNIT_S[match[2]]
    if not 0 < value < 1e7:
        raise ValueError(found)
    return value


def at_least_s(least_s: float) -> Accepts:
    """A duration of so many seconds or more."""

    def accept(found: object) -> float:
        value = _seconds(found)
        if value < least_s:
            raise ValueError(found)
        return value

    return Accepts(accept, f'a duration of {least_s:g} seconds or more: seconds as a number, or "2s", "5m"')


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def _name(found: object) -> str:
    if not _NAME.match(_string(found)):
        raise ValueError(found)
    return str(found)


def _path_prefix(found: object) -> str:
    text = _string(found)
    if not text.startswith("/") or not text.isascii() or any(c <= " " or c in "?#" for c in text):
        raise ValueError(found)
    return text


@attrs.frozen
class HostPort:
    """A host (name or address, without brackets) and a TCP or UDP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?\Z")


def _host_port(found: object) -> HostPort:
    host, colon, port = _string(found).rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(found)
    if host.startswith("[") and host.endswith("]"):
        return HostPort(str(IPv6Address(host[1:-1])), int(port))
    if not _HOST.match(host):
        raise ValueError(found)
    return HostPort(host, int(port))


def _host_pattern(found: object) -> str:
    text = _string(found).lower()
    if text == "*":
        return text
    if text.startswith("[") and text.endswith("]"):
        return f"[{IPv6Address(text[1:-1])}]"
    wild, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    name = name.rstrip(".").encode("idna").decode()  # what browsers ask for (RFC 3490)
    if not _HOST.match(name):
        raise ValueError(found)
    return wild + name


def _ip(found: object) -> IPv4Address | IPv6Address:
    return ip_address(_string(found))


def _interface(found: object) -> IPv4Interface | IPv6Interface:
    return ip_interface(_string(found))


def _network(found: object) -> IPv4Network | IPv6Network:
    return ip_network(_string(found))


_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1
_OPTIONS.log_errors = False


def _pattern(found: object) -> str:
    try:
        re2.compile(_string(found).encode(), _OPTIONS)
    except re2.error:
        raise ValueError(found) from None
    return str(found)


# RFC 9110 §5.1, §5.5: what could end a line would begin a field of somebody else's.
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z")


def _field_name(found: object) -> str:
    if not _FIELD_NAME.match(_string(found)):
        raise ValueError(found)
    return str(found)


def _field_text(found: object) -> str:
    if not isinstance(found, str) or any(c < " " or c == "\x7f" for c in found):
        raise ValueError(found)
    return found


def _field_test(found: object) -> str | bool:
    if isinstance(found, bool):
        return found
    text = _field_text(found)
    if text.startswith("~"):
        _pattern(text[1:])
    return text


_HASH_KEY = re.compile(r"(url|path|host|client|(header|cookie|query):[A-Za-z0-9_.-]{1,128})\Z")


def _hash_key(found: object) -> str:
    if not _HASH_KEY.match(_string(found)):
        raise ValueError(found)
    return str(found)


Text = Annotated[str, Accepts(_string, "a string that is not empty")]
Flag = Annotated[bool, Accepts(_flag, "true or false")]
NAME = Accepts(_name, "1 to 63 letters, digits, '-', '_' or '.'")
HOST_PORT = Accepts(_host_port, '"host:port", such as "10.0.0.21:80", "web1:80" or "[2001:db8::1]:80"')
Name = Annotated[str, NAME]
Seconds = Annotated[float, Accepts(_seconds, 'a duration above 0: seconds as a number, or "250ms", "2s", "5m", "1h"')]
SecondsOrZero = Annotated[
    float,
    Accepts(
        lambda found: 0.0 if found == 0 and not isinstance(found, bool) else _seconds(found),
        'a duration: seconds as a number, or "250ms", "2s", "5m", "1h"; 0 for none',
    ),
]
Port = Annotated[int, between(1, 65535)]
PathText = Annotated[Path, Accepts(lambda found: Path(_string(found)), "the path of a file")]
PathPrefix = Annotated[str, Accepts(_path_prefix, 'a path that begins with "/"')]
HostPortText = Annotated[HostPort, HOST_PORT]
HostPattern = Annotated[
    str, Accepts(_host_pattern, 'a host name, "*." and a host name (any labels before it), or "*"; without a port')
]
Pattern = Annotated[
    str, Accepts(_pattern, "a regular expression of RE2 (no look-around, no back-references: always linear)")
]
FieldName = Annotated[str, Accepts(_field_name, "the name of a header field")]
FieldText = Annotated[str, Accepts(_field_text, "a line of text")]
FieldTestValue = Annotated[
    str | bool,
    Accepts(_field_test, 'a text, "~" and a regular expression, true (it is there) or false (it is not)'),
]
HashKey = Annotated[
    str,
    Accepts(_hash_key, '"url", "path", "host", "client", "header:NAME", "cookie:NAME" or "query:NAME"'),
]
IpAddress = Annotated[IPv4Address | IPv6Address, Accepts(_ip, 'an IP address, such as "10.0.0.1" or "2001:db8::1"')]
Interface = Annotated[
    IPv4Interface | IPv6Interface,
    Accepts(_interface, 'an IP address, with a prefix length where it is not the whole: "10.0.0.100/24"'),
]
NetworkText = Annotated[
    IPv4Network | IPv6Network, Accepts(_network, 'a network, such as "10.0.0.0/8", or an address, such as "10.0.0.1"')
]
