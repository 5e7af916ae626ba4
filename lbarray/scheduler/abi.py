"""``bpf/abi.h`` in Python: formats for :mod:`struct`, limits and names."""

from __future__ import annotations

import enum
import struct
from ipaddress import IPv6Address

from lbarray.values import Address, ServiceId

__all__ = [
    "CONFIG",
    "MAX_ROWS",
    "MAX_WORKERS",
    "ROW",
    "SERVICE",
    "SERVICE_KEY",
    "TALLY",
    "U32",
    "WORKER",
    "Verdict",
    "WorkerFlag",
    "mapped",
    "pack_service_key",
]

MAX_WORKERS = 256
MAX_SERVICES = 256
MAX_ROWS = 131071

U32 = struct.Struct("=I")
CONFIG = struct.Struct("=III6sH")
SERVICE_KEY = struct.Struct("=16s2sBB")
SERVICE = struct.Struct("=II")
ROW = struct.Struct("=HHHH")
WORKER = struct.Struct("=6sBB")
TALLY = struct.Struct("=QQ")

PROTOCOLS = {"tcp": 6, "udp": 17}


class WorkerFlag(enum.IntFlag):
    """Of ``struct worker``."""

    KNOWN = 1
    LOCAL = 2


class Verdict(enum.IntEnum):
    """What became of a packet, and why."""

    FORWARDED = 0
    PASSED_LOCAL = 1
    PASSED_INACTIVE = 2
    PASSED_NOT_IP = 3
    PASSED_NOT_TCP = 4
    PASSED_NO_SERVICE = 5
    PASSED_FRAGMENT = 6
    PASSED_NO_WORKER = 7
    PASSED_TRUNCATED = 8


def mapped(address: Address) -> bytes:
    """Sixteen octets: IPv6, or IPv4 mapped into it (RFC 4291 §2.5.5.2)."""
    if isinstance(address, IPv6Address):
        return address.packed
    return b"\0" * 10 + b"\xff\xff" + address.packed


def pack_service_key(service: ServiceId) -> bytes:
    """The key of the map ``services``."""
    return SERVICE_KEY.pack(mapped(service.address), service.port.to_bytes(2, "big"), PROTOCOLS[service.protocol], 0)
