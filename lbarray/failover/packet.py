"""VRRP version 3 advertisements as octets (RFC 9568 §5)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

from lbarray.errors import Unreadable
from lbarray.values import Address

__all__ = ["Advertisement", "BadAdvertisement", "decode", "encode", "from_ipv4_datagram"]

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

    A checksum without the pseudo-header is accepted too: implementations differ for IPv4.

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


def from_ipv4_datagram(datagram: bytes) -> tuple[Advertisement, IPv4Address]:
    """Read what a raw IPv4 socket delivers, header included; returns the sender too.

    :raises BadAdvertisement: among others when its TTL is not 255, so that it was routed (§5.1.1.3).
    """
    header = (datagram[0] & 0x0F) * 4 if datagram else 0
    if header < 20 or len(datagram) < header:
        raise BadAdvertisement("truncated", f"{len(datagram)} octets are no IPv4 datagram")
    source, destination = IPv4Address(datagram[12:16]), IPv4Address(datagram[16:20])
    if datagram[8] != 255:
        raise BadAdvertisement("ttl", f"advertisement from {source} with TTL {datagram[8]}: it was routed")
    return decode(datagram[header:], source, destination), source
