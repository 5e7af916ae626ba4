"""Sockets that need privilege: IP protocols of their own, and whole frames."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["GROUPS", "answer_socket", "claims_socket", "packet_socket", "vrrp_socket"]

_ADVICE = "run the node as root (CAP_NET_RAW)"
PROTOCOL_VRRP = 112
#: Where advertisements go (RFC 9568 §5.1.1.2, §5.1.2.2), by IP version.
GROUPS: dict[int, Address] = {4: IPv4Address("224.0.0.18"), 6: IPv6Address("ff02::12")}

_ETH_P_ARP = 0x0806
_ETH_P_IPV6 = 0x86DD
_SO_ATTACH_FILTER = 26
_SOL_PACKET = 263
_PACKET_IGNORE_OUTGOING = 23


def vrrp_socket(interface: str, index: int, local: Address) -> socket.socket:
    """A non-blocking raw socket for VRRP on one interface, member of the group of ``local``'s family.

    Of IPv4 it delivers datagrams with their header; of IPv6 the message, and hop limit and destination as ancillary
    data.

    :raises SystemRefused: no privilege, or the interface went away.
    """
    family = socket.AF_INET6 if local.version == 6 else socket.AF_INET
    try:
        raw = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, PROTOCOL_VRRP)
    except OSError as error:
        raise SystemRefused("open a raw socket for VRRP", errno=error.errno or 0, advice=_ADVICE) from None
    prepare: Callable[[socket.socket, int, Address], None] = _prepare_ipv6 if local.version == 6 else _prepare_ipv4
    try:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 6)
        prepare(raw, index, local)
    except OSError as error:
        raw.close()
        raise SystemRefused(f"prepare the VRRP socket on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return raw


def _prepare_ipv4(raw: socket.socket, index: int, local: Address) -> None:
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    # Network control: an advertisement must not wait behind data when the link is full.
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xC0)
    group = struct.pack("=4s4si", GROUPS[4].packed, local.packed, index)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, group)


def _prepare_ipv6(raw: socket.socket, index: int, local: Address) -> None:
    level = socket.IPPROTO_IPV6
    raw.setsockopt(level, socket.IPV6_MULTICAST_HOPS, 255)
    raw.setsockopt(level, socket.IPV6_UNICAST_HOPS, 255)
    raw.setsockopt(level, socket.IPV6_MULTICAST_LOOP, 0)
    raw.setsockopt(level, socket.IPV6_TCLASS, 0xC0)
    raw.setsockopt(level, socket.IPV6_MULTICAST_IF, index)
    raw.setsockopt(level, socket.IPV6_JOIN_GROUP, struct.pack("=16si", GROUPS[6].packed, index))
    raw.setsockopt(level, socket.IPV6_RECVHOPLIMIT, 1)
    raw.setsockopt(level, socket.IPV6_RECVPKTINFO, 1)
    # The checksum covers a pseudo-header with our address: the kernel must not choose another one for it.
    raw.bind((str(local), 0, 0, index if local.is_link_local else 0))


def packet_socket(interface: str) -> socket.socket:
    """A non-blocking socket that sends whole Ethernet frames on one interface and receives none.

    :raises SystemRefused: no privilege, or no such interface.
    """
    return _frames(interface, 0)


def claims_socket(interface: str, version: int) -> socket.socket:
    """A non-blocking socket that receives what claims addresses: ARP frames, or neighbour advertisements (version 6).

    :raises SystemRefused: no privilege, or no such interface.
    """
    # Not ETH_P_ALL: a tap for everything would cost each of the VIPs' packets.
    raw = _frames(interface, _ETH_P_IPV6 if version == 6 else _ETH_P_ARP)
    try:
        raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        if version == 6:
            _only_neighbour_advertisements(raw)
    except OSError as error:
        raw.close()
        raise SystemRefused(f"listen for neighbours on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return raw


def _only_neighbour_advertisements(raw: socket.socket) -> None:
    """Classic BPF: IPv6's next header is ICMPv6 and its type 136."""
    program = [
        (0x30, 0, 0, 20),  # ldb [20]: next header
        (0x15, 0, 3, 58),  # jeq ICMPv6, else refuse
        (0x30, 0, 0, 54),  # ldb [54]: type
        (0x15, 0, 1, 136),  # jeq neighbour advertisement, else refuse
        (0x06, 0, 0, 256),  # ret: so many octets of it
        (0x06, 0, 0, 0),  # ret: none
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def _frames(interface: str, protocol: int) -> socket.socket:
    try:
        # Protocol 0 until it is bound: else it would hear every interface for a moment.
        frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise SystemRefused("open a packet socket", errno=error.errno or 0, advice=_ADVICE) from None
    try:
        frames.bind((interface, protocol))
    except OSError as error:
        frames.close()
        raise SystemRefused(f"open a packet socket on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return frames


_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_SO_ATTACH_FILTER = 26
#: Instructions of classic BPF (``linux/filter.h``).
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HALF_AT, _LOAD_HEADER_LENGTH = 0x20, 0x28, 0x30, 0x48, 0xB1
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_OF, _RETURN = 0x15, 0x35, 0x45, 0x06


def _answer_filter(to: Address, first_port: int) -> list[tuple[int, int, int, int]]:
    """TCP to an address and to ports from ``first_port`` up; packets begin with their IP header."""
    words = struct.unpack(f"!{len(to.packed) // 4}I", to.packed)
    if to.version == 4:
        steps = [
            (_LOAD_BYTE, 9, _IF_EQUAL, 6),
            (_LOAD_HALF, 6, _IF_ANY_OF, 0x1FFF),
            (_LOAD_WORD, 16, _IF_EQUAL, words[0]),
        ]
        port = [(_LOAD_HEADER_LENGTH, 0, 0, 0), (_LOAD_HALF_AT, 0, 0, 2)]
    else:
        steps = [(_LOAD_BYTE, 6, _IF_EQUAL, 6)]
        steps += [(_LOAD_WORD, 24 + 4 * place, _IF_EQUAL, word) for place, word in enumerate(words)]
        port = [(_LOAD_HALF, 0, 0, 42)]
    program: list[tuple[int, int, int, int]] = []
    after = len(port) + 2
    for left, (load, offset, test, value) in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
        refuse = 2 * left + after
        program.append((load, 0, 0, offset))
        # Fragments are refused when the bits are there, everything else when the value is not.
        program.append((test, refuse, 0, value) if test == _IF_ANY_OF else (test, 0, refuse, value))
    return [*program, *port, (_IF_AT_LEAST, 0, 1, first_port), (_RETURN, 0, 0, 128), (_RETURN, 0, 0, 0)]


def answer_socket(interface: str, to: Address, first_port: int) -> socket.socket:
    """A non-blocking socket that receives IP packets without their frames: TCP to the address ``to`` and a port from
    ``first_port`` up, as they come in at the interface, before the kernel judges where they came from.

    :raises SystemRefused: no privilege, or no such interface.
    """
    # Classic BPF (Linux, networking/filter.rst): what does not matter never wakes us.
    steps = _answer_filter(to, first_port)
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    try:
        answers = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    except OSError as error:
        raise SystemRefused("open a packet socket", errno=error.errno or 0, advice=_ADVICE) from None
    try:
        held = ctypes.create_string_buffer(program, len(program))
        answers.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(held)))
        answers.bind((interface, _ETH_P_IPV6 if to.version == 6 else _ETH_P_IP))
    except OSError as error:
        answers.close()
        raise SystemRefused(f"open a packet socket on {interface}", errno=error.errno or 0, advice=_ADVICE) from None
    return answers
