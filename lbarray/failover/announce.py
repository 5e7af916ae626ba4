"""Telling the segment where an address lives now, and asking whether somebody has it: frames, without I/O.

Gratuitous ARP (RFC 5227 §3, RFC 9568 §6.4.2), unsolicited neighbour advertisements (RFC 4861 §7.2.6), and the probes
of both protocols (RFC 5227 §2.1.1, RFC 4862 §5.4.2).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

from lbarray.failover.packet import checksum
from lbarray.values import Address

__all__ = ["REPEATS_S", "Claim", "announcements", "claim_in", "multicast_mac", "probe"]

#: Seconds after taking an address at which it is announced: at once, then in case the first ones are lost.
REPEATS_S = (0.0, 0.2, 1.0, 5.0)

ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_ARP = b"\x08\x06"
ETHERTYPE_IPV6 = b"\x86\xdd"
_BROADCAST = b"\xff" * 6
_EVERYBODY = IPv6Address("ff02::1")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_ICMPV6 = 58
_SOLICITATION, _ADVERTISEMENT = 135, 136


@attrs.frozen
class Claim:
    """Somebody says that ``address`` is at ``mac`` (six octets)."""

    address: Address
    mac: bytes


def announcements(address: Address, mac: bytes) -> tuple[bytes, ...]:
    """The Ethernet frames that make neighbours send ``address``'s packets to ``mac``.

    ARP has two forms, since some neighbours heed only the one and some only the other.
    """
    if isinstance(address, IPv4Address):
        return tuple(gratuitous_arp(address, mac, operation) for operation in (_REQUEST, _REPLY))
    return (unsolicited_neighbour_advertisement(address, mac),)


def gratuitous_arp(address: IPv4Address, mac: bytes, operation: int = _REQUEST) -> bytes:
    """A broadcast whose sender and target are both ``address``."""
    target = b"\0" * 6 if operation == _REQUEST else mac
    return _arp(operation, mac, address.packed, target, address.packed)


def _arp(operation: int, mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    arp = _ARP.pack(1, 0x0800, 6, 4, operation, mac, sender, target_mac, target)
    return _BROADCAST + mac + ETHERTYPE_ARP + arp.ljust(46, b"\0")


def unsolicited_neighbour_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """A neighbour advertisement to all nodes with the router and override flags (RFC 9568 §6.4.2)."""
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, 0xA0000000) + address.packed + b"\x02\x01" + mac
    return _icmpv6(body, mac, address, _EVERYBODY)


def multicast_mac(group: Address) -> bytes:
    """The Ethernet address of a multicast group (RFC 1112 §6.4, RFC 2464 §7)."""
    if group.version == 6:
        return b"\x33\x33" + group.packed[12:]
    return b"\x01\x00\x5e" + bytes([group.packed[1] & 0x7F]) + group.packed[2:]


def _icmpv6(body: bytes, mac: bytes, source: IPv6Address, destination: IPv6Address) -> bytes:
    pseudo = source.packed + destination.packed + struct.pack("!I3xB", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), _ICMPV6, 255) + source.packed + destination.packed
    return multicast_mac(destination) + mac + ETHERTYPE_IPV6 + header + body


def probe(address: Address, mac: bytes) -> bytes:
    """The frame that asks whether anybody has ``address``, and changes nobody's cache."""
    if isinstance(address, IPv4Address):
        return _arp(_REQUEST, mac, b"\0" * 4, b"\0" * 6, address.packed)
    solicited = IPv6Address(_SOLICITED + address.packed[13:])
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + address.packed
    return _icmpv6(body, mac, IPv6Address(0), solicited)


_SOLICITED = IPv6Address("ff02::1:ff00:0").packed[:13]


def claim_in(frame: bytes) -> Claim | None:
    """What an Ethernet frame claims, if it is ARP with a sender address, or a neighbour advertisement.

    Anything else, however malformed, claims nothing.
    """
    kind = frame[12:14]
    if kind == ETHERTYPE_ARP and len(frame) >= 14 + _ARP.size:
        hardware, protocol, _, _, _, mac, sender, _, _ = _ARP.unpack_from(frame, 14)
        if (hardware, protocol) == (1, 0x0800) and any(sender):
            return Claim(IPv4Address(sender), mac)
    elif kind == ETHERTYPE_IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _ADVERTISEMENT:
        mac = frame[80:86] if frame[78:80] == b"\x02\x01" and len(frame) >= 86 else frame[6:12]
        return Claim(IPv6Address(frame[62:78]), mac)
    return None
