"""Sockets that need privilege: IP protocols of their own, and whole frames."""

from __future__ import annotations

import socket
import struct

from lbarray.errors import SystemRefused

__all__ = ["packet_socket", "vrrp_socket"]

_ADVICE = "run the node as root (CAP_NET_RAW)"
PROTOCOL_VRRP = 112
GROUP_IPV4 = "224.0.0.18"


def vrrp_socket(interface: str, index: int, local: str) -> socket.socket:
    """A non-blocking raw IPv4 socket for VRRP on one interface, member of 224.0.0.18 (RFC 9568 §5.1.1).

    :raises SystemRefused: no privilege, or the interface went away.
    """
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL_VRRP)
    except OSError as error:
        raise SystemRefused("open a raw socket for VRRP", errno=error.errno or 0, advice=_ADVICE) from None
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        # Network control: an advertisement must not wait behind data when the link is full.
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xC0)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 6)
        group = struct.pack("=4s4si", socket.inet_aton(GROUP_IPV4), socket.inet_aton(local), index)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)
    except OSError as error:
        raw.close()
        raise SystemRefused(f"prepare the VRRP socket on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return raw


def packet_socket(interface: str) -> socket.socket:
    """A non-blocking socket that sends whole Ethernet frames on one interface and receives none.

    :raises SystemRefused: no privilege, or no such interface.
    """
    try:
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise SystemRefused("open a packet socket", errno=error.errno or 0, advice=_ADVICE) from None
    try:
        frames.bind((interface, 0))
    except OSError as error:
        frames.close()
        raise SystemRefused(f"open a packet socket on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return frames
