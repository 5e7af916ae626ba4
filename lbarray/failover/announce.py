"""Telling the segment where an address lives now: gratuitous ARP (RFC 5227 §3, RFC 9568 §6.4.2)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from lbarray.failover.packet import checksum
from lbarray.values import Address

__all__ = ["REPEATS_S", "announcement"]

#: Seconds after taking an address at which it is announced: at once, then in case the first ones are lost.
REPEATS_S = (0.0, 0.2, 1.0, 5.0)

_BROADCAST = b"\xff" * 6


def announcement(address: Address, mac: bytes) -> bytes:
    """The Ethernet frame that makes neighbours send ``address``'s packets to ``mac``."""
    if isinstance(address, IPv4Address):
        return gratuitous_arp(address, mac)
    return unsolicited_neighbour_advertisement(address, mac)


def gratuitous_arp(address: IPv4Address, mac: bytes) -> bytes:
    """An ARP announcement: a broadcast request whose sender and target are both ``address``."""
    arp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mac, address.packed, b"\0" * 6, address.packed)
    return _BROADCAST + mac + b"\x08\x06" + arp.ljust(46, b"\0")


def unsolicited_neighbour_advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """A neighbour advertisement to all nodes with the override flag (RFC 4861 §7.2.6)."""
    everybody = IPv6Address("ff02::1")
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address.packed + b"\x02\x01" + mac
    pseudo = address.packed + everybody.packed + struct.pack("!I3xB", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + address.packed + everybody.packed
    return b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + body
