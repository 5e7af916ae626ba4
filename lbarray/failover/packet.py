"""VRRP version 3 advertisements as octets (RFC 9568 §5)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

from lbarray.errors import Unreadable
from lbarray.values import Address

__all__ = [
    "Advertisement",
    "BadAdvertisement",
    "check_ttl",
    "checksum",
    "decode",
    "encode",
    "from_ipv4_datagram",
    "ip_datagram",
]

PROTOCOL = 112
_FIXED = struct.Struct("!BBBBHH")


class BadAdvertisement(Unreadable):
    """Not an advertisement that we may listen to (RFC 9568 §7.1). ``why`` is its counter's label."""

    reason = "vrrp"


@attrs.frozen
class Advertisement:
    """What an Active Router says (RFC 9568 §5.2).

    :ivar priority: 0 (leaving) to 255 (owner of the addresses).
    :ivar interval_cs: centiseconds, 1 to 4095.
    """

    router_id: int
    priority: int
    interval_cs: int
    addresses: tuple[Address, ...]


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(octets) % 2:
        octets += b"\0"
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo_header(source: Address, destination: Address, length: int) -> bytes:
    if source.version == 6:
        return source.packed + destination.packed + struct.pack("!I3xB", length, PROTOCOL)
    return source.packed + destination.packed + struct.pack("!xBH", PROTOCOL, length)


def encode(advertisement: Advertisement, source: Address, destination: Address) -> bytes:
    """The VRRP message, without IP header; the checksum covers the pseudo-header as well (§5.2.8)."""
    addresses = b"".join(address.packed for address in advertisement.addresses)

    def message(check: int) -> bytes:
        return (
            _FIXED.pack(
                0x31,  # version 3, type 1
                advertisement.router_id,
                advertisement.priority,
                len(advertisement.addresses),
                advertisement.interval_cs & 0x0FFF,
                check,
            )
            + addresses
        )

    plain = message(0)
    return message(checksum(_pseudo_header(source, destination, len(plain)) + plain))


def decode(message: bytes, source: Address, destination: Address) -> Advertisement:
    """Read and verify a VRRP message (RFC 9568 §7.1).

    A checksum without the pseudo-header is accepted too: implementations differ for IPv4. Octets behind the addresses
    do not count.

    :raises BadAdvertisement: it must be discarded.
    """
    if len(message) < _FIXED.size:
        raise BadAdvertisement("truncated", f"{len(message)} octets from {source} are no advertisement")
    first, router_id, priority, count, interval_cs, _ = _FIXED.unpack_from(message)
    if first >> 4 != 3:
        raise BadAdvertisement("version", f"VRRP version {first >> 4} from {source}; this node speaks version 3")
    if first & 0x0F != 1:
        raise BadAdvertisement("type", f"unknown VRRP type {first & 0x0F} from {source}")
    size = 16 if source.version == 6 else 4
    wanted = _FIXED.size + count * size
    if not count or len(message) < wanted:
        raise BadAdvertisement("truncated", f"{count} addresses do not fit {len(message)} octets from {source}")
    message = message[:wanted]
    if checksum(_pseudo_header(source, destination, wanted) + message) and checksum(message):
        raise BadAdvertisement("checksum", f"wrong checksum from {source}")
    interval_cs &= 0x0FFF
    if not interval_cs:
        raise BadAdvertisement("interval", f"advertisement interval 0 from {source}")
    kind = IPv6Address if source.version == 6 else IPv4Address
    addresses = tuple(kind(message[at : at + size]) for at in range(_FIXED.size, wanted, size))
    return Advertisement(router_id, priority, interval_cs, addresses)


def from_ipv4_datagram(datagram: bytes, min_ttl: int = 255) -> tuple[bytes, IPv4Address, IPv4Address]:
    """The VRRP message, sender and destination in what a raw IPv4 socket delivers, header included.

    :raises BadAdvertisement: among others when its TTL is below ``min_ttl``: below 255 it was routed (§5.1.1.3).
    """
    header = (datagram[0] & 0x0F) * 4 if datagram else 0
    if header < 20 or len(datagram) < header:
        raise BadAdvertisement("truncated", f"{len(datagram)} octets are no IPv4 datagram")
    source, destination = IPv4Address(datagram[12:16]), IPv4Address(datagram[16:20])
    check_ttl(datagram[8], source, min_ttl)
    return datagram[header:], source, destination


def check_ttl(ttl: int, source: Address, min_ttl: int) -> None:
    """:raises BadAdvertisement: the TTL or hop limit is too low (§5.1.1.3, §5.1.2.3)."""
    if ttl < min_ttl:
        raise BadAdvertisement("ttl", f"advertisement from {source} with TTL {ttl}: it was routed")


def ip_datagram(message: bytes, source: Address, destination: Address) -> bytes:
    """The message behind the IP header that the RFC wants: TTL 255, protocol 112, internetwork control (§5.1)."""
    if source.version == 6:
        head = struct.pack("!IHBB", 0x6C000000, len(message), PROTOCOL, 255)
        return head + source.packed + destination.packed + message
    head = struct.pack("!BBHHHBB", 0x45, 0xC0, 20 + len(message), 0, 0, 255, PROTOCOL)
    check = checksum(head + b"\0\0" + source.packed + destination.packed)
    return head + struct.pack("!H", check) + source.packed + destination.packed + message
