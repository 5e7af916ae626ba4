"""The PROXY protocol, versions 1 and 2: who the client is, told by a proxy in front of us or to a back end behind us.

Written from HAProxy's ``proxy-protocol.txt`` (2020/03/05), sections 2.1 and 2.2. No I/O: octets in, an answer out.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from lbarray.errors import Unreadable

__all__ = ["BadProxyHeader", "Proxied", "ProxyHeader", "proxy_header"]

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: "Enough for the worst case": 107 octets with CRLF (§2.1).
V1_LIMIT = 107
#: Addresses and TLVs; far more than anybody sends, far less than the 65,535 that a length could claim.
V2_LIMIT = 4096


class BadProxyHeader(Unreadable):
    """What a trusted proxy sent is no PROXY header."""

    reason = "proxy_header"


@attrs.frozen
class Proxied:
    """Who the connection is from and where it went; both ``None`` for the proxy's own (LOCAL, UNKNOWN).

    :ivar source: address and port of the client.
    :ivar destination: address and port that it connected to.
    """

    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None


class ProxyHeader:
    """Reads one header from the beginning of a connection, however TCP cuts it.

    :ivar result: set once the header is complete.
    """

    def __init__(self) -> None:
        self.result: Proxied | None = None
        self._seen = b""

    def feed(self, data: bytes) -> int:
        """How many octets of ``data`` belong to the header; all of them while it is not complete. What follows it
        is not looked at.

        :raises BadProxyHeader: it cannot become a header any more.
        """
        before = len(self._seen)
        seen = self._seen + data
        if SIGNATURE.startswith(seen[: len(SIGNATURE)]):
            end = self._version_2(seen)
        elif b"PROXY ".startswith(seen[:6]):
            end = self._version_1(seen)
        else:
            raise BadProxyHeader("no_signature", f"a connection that begins with {seen[:16]!r}")
        if end is None:
            self._seen = seen
            return len(data)
        self._seen = seen[:end]
        return end - before

    def _version_1(self, seen: bytes) -> int | None:
        end = seen.find(b"\r\n", 0, V1_LIMIT)
        if end < 0:
            if len(seen) >= V1_LIMIT:
                raise BadProxyHeader("too_long", f"no end of line within {V1_LIMIT} octets")
            return None
        words = seen[:end].split(b" ")
        if words[1:2] == [b"UNKNOWN"]:
            self.result = Proxied()
        elif len(words) == 6 and words[1] in (b"TCP4", b"TCP6"):
            kind = IPv4Address if words[1] == b"TCP4" else IPv6Address
            try:
                source, destination = (str(kind(word.decode("ascii"))) for word in words[2:4])
                ports = [_port(word) for word in words[4:6]]
            except ValueError:
                raise BadProxyHeader("address", f"the line {seen[:end]!r}") from None
            self.result = Proxied((source, ports[0]), (destination, ports[1]))
        else:
            raise BadProxyHeader("syntax", f"the line {seen[:end]!r}")
        return end + 2

    def _version_2(self, seen: bytes) -> int | None:
        if len(seen) < 16:
            return None
        version_command, family, length = struct.unpack_from("!BBH", seen, 12)
        if version_command >> 4 != 2 or version_command & 15 > 1:
            raise BadProxyHeader("version", f"version and command {version_command:#04x}")
        if length > V2_LIMIT:
            raise BadProxyHeader("too_long", f"{length} octets of addresses and extensions")
        if len(seen) < 16 + length:
            return None
        self.result = self._addresses(seen[16 : 16 + length], version_command & 15, family)
        return 16 + int(length)

    @staticmethod
    def _addresses(content: bytes, command: int, family: int) -> Proxied:
        if command == 0 or family not in (0x11, 0x21):
            # LOCAL, and what is neither TCP over IPv4 nor over IPv6: the connection's own addresses count (§2.2).
            return Proxied()
        size, kind = (4, IPv4Address) if family == 0x11 else (16, IPv6Address)
        if len(content) < 2 * size + 4:
            raise BadProxyHeader("too_short", f"{len(content)} octets of addresses")
        ports = struct.unpack_from("!HH", content, 2 * size)
        source, destination = (str(kind(content[at : at + size])) for at in (0, size))
        return Proxied((source, ports[0]), (destination, ports[1]))


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (len(word) > 1 and word.startswith(b"0")) or int(word) > 65535:
        raise ValueError(word)
    return int(word)


def proxy_header(version: int, source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """The header for a back end. Without addresses, or with two of different families, it says that it knows none."""
    known = source is not None and destination is not None
    addresses = [ip_address(end[0]) for end in (source, destination) if end is not None] if known else []
    if source is None or destination is None or addresses[0].version != addresses[1].version:
        return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + b"\x20\0\0\0"
    if version == 1:
        kind = 4 if addresses[0].version == 4 else 6
        return b"PROXY TCP%d %b %b %d %d\r\n" % (
            kind,
            str(addresses[0]).encode(),
            str(addresses[1]).encode(),
            source[1],
            destination[1],
        )
    content = b"".join(address.packed for address in addresses) + struct.pack("!HH", source[1], destination[1])
    family = 0x11 if addresses[0].version == 4 else 0x21
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(content)) + content
