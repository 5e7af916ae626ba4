"""``bpf/abi.h`` in Python: formats for :mod:`struct`, limits and names."""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv4Address, IPv6Address

from lbarray.values import Address, HashBy, PlaneService, ServiceId

__all__ = [
    "CONFIG",
    "COST",
    "COST_OF_ONE",
    "FATE",
    "FLOWS",
    "FLOW_BITS",
    "FRAGMENT",
    "FRONT",
    "FRONTS",
    "GUE_PORT",
    "GUE_PRIVATE",
    "MARGIN",
    "MARGIN_SHIFT",
    "MARK_ONCE",
    "MARK_TWICE",
    "MAX_FRAGMENTS",
    "MAX_ROWS",
    "MAX_SERVICES",
    "MAX_VIPS",
    "MAX_WORKERS",
    "MEMORY",
    "NEAR",
    "NOBODY",
    "PASSES",
    "PASSES_OF_TWO_ROWS",
    "PROTOCOLS",
    "QUOTED_OCTETS",
    "REPORTS_OCTETS",
    "ROW",
    "SERVICE",
    "SERVICE_KEY",
    "SHARE",
    "SHOWN_OCTETS",
    "TALLY",
    "TOO_BIG",
    "TUNNEL_MARK",
    "U32",
    "WORKER",
    "Choice",
    "Verdict",
    "WorkerFlag",
    "client_mask",
    "mapped",
    "pack_service_key",
    "unmapped",
]

MAX_WORKERS = 256
MAX_SERVICES = 64
MAX_VIPS = 64
FRONTS = 4
MAX_ROWS = 655373
FLOWS = 262144
FLOW_BITS = 18
NEAR = 256
MAX_FRAGMENTS = 4096
NOBODY = 0xFFFF
QUOTED_OCTETS = 512
REPORTS_OCTETS = 65536
SHOWN_OCTETS = 2048
MARK_ONCE = 0x88B5
MARK_TWICE = 0x88B6
GUE_PORT = 6080
GUE_PRIVATE = 0x4C42
TUNNEL_MARK = 0x4C
PASSES = 3
PASSES_OF_TWO_ROWS = 7
COST_OF_ONE = 1024
MARGIN = 4
MARGIN_SHIFT = 4

U32 = struct.Struct("=I")
CONFIG = struct.Struct("=4Q6s2x16sIIHBxIH6x224s2048s")
SERVICE_KEY = struct.Struct("=16s2sBB")
SERVICE = struct.Struct("=BBBBH2x16s")
FRONT = struct.Struct("=20s4x24s8s")
ROW = struct.Struct("=HHHH")
WORKER = struct.Struct("=6sBB16s")
COST = struct.Struct("=QII")
MEMORY = struct.Struct("=16s2sHHHI4x")
FRAGMENT = struct.Struct("=16s16s4sB3x")
FATE = struct.Struct("=HBB")
TALLY = struct.Struct("=QQ")
SHARE = struct.Struct("=QQQQQQ")
TOO_BIG = struct.Struct("=I526s2x")

PROTOCOLS = {"tcp": 6, "udp": 17}
_MAPPED = b"\0" * 10 + b"\xff\xff"


class WorkerFlag(enum.IntFlag):
    """Of ``struct worker``."""

    KNOWN = 1
    LOCAL = 2
    IPIP = 4
    GUE = 8


class Choice(enum.IntEnum):
    """Who may have a service's connections: the worker of their row; that of their second row, too; whichever of them
    is less loaded gets a new one."""

    ONE_ROW = 0
    TWO_ROWS = 1
    LESS_LOADED = 2


class Verdict(enum.IntEnum):
    """What became of a packet, and why. Only packets to VIPs are ever dropped.

    ``FORWARDED`` to the worker of its row, ``PASSED_ON`` to a former one (second chance), ``PASSED_LOCAL``: this node
    is the worker, ``PASSED_DELIVERED``: another node scheduled it to this one, ``PASSED_ELSEWHERE``: to a third one,
    and a switch sent it to all; ``PASSED_AGAIN``: seen before. ``DROPPED_NO_ROOM``: the kernel did not change the
    headers of a packet to or from a tunnel; counted besides its verdict, where it has one.
    """

    FORWARDED = 0
    PASSED_ON = 1
    PASSED_LOCAL = 2
    PASSED_DELIVERED = 3
    PASSED_AGAIN = 4
    PASSED_INACTIVE = 5
    PASSED_NOT_IP = 6
    PASSED_OTHER_PROTOCOL = 7
    PASSED_NO_SERVICE = 8
    PASSED_NO_WORKER = 9
    PASSED_ELSEWHERE = 10
    DROPPED_TRUNCATED = 11
    DROPPED_BAD_IP = 12
    DROPPED_BAD_TCP = 13
    DROPPED_LONE_FRAGMENT = 14
    DROPPED_TOO_BIG = 15
    DROPPED_NO_ROOM = 16

    @property
    def leaves(self) -> bool:
        """The packet goes out again."""
        return self <= Verdict.PASSED_ON

    @property
    def drops(self) -> bool:
        """The packet goes nowhere."""
        return self >= Verdict.DROPPED_TRUNCATED


def mapped(address: Address) -> bytes:
    """Sixteen octets: IPv6, or IPv4 mapped into it (RFC 4291 §2.5.5.2)."""
    if isinstance(address, IPv6Address):
        return address.packed
    return _MAPPED + address.packed


def unmapped(octets: bytes) -> Address:
    """The address of :func:`mapped` octets."""
    return IPv4Address(octets[12:]) if octets[:12] == _MAPPED else IPv6Address(octets)


def pack_service_key(service: ServiceId) -> bytes:
    """The key of the map ``services``."""
    return SERVICE_KEY.pack(mapped(service.address), service.port.to_bytes(2, "big"), PROTOCOLS[service.protocol], 0)


def client_mask(service: PlaneService) -> bytes:
    """Sixteen octets: the bits of a :func:`mapped` client address that choose a row when hashing by client."""
    bits = 128
    if service.hash_by is HashBy.CLIENT:
        bits = 96 + service.prefix4 if service.id.address.version == 4 else service.prefix6
    return (((1 << bits) - 1) << (128 - bits)).to_bytes(16, "big")
