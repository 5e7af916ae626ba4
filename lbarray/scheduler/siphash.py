"""SipHash-1-3 (Aumasson and Bernstein, INDOCRYPT 2012): a keyed hash that short inputs cannot be aimed through."""

from __future__ import annotations

import struct

__all__ = ["begun", "siphash13"]

_M = 0xFFFFFFFFFFFFFFFF


def siphash13(key: bytes, message: bytes) -> int:
    """64 bits. ``key`` is 16 octets."""
    v0, v1, v2, v3 = _keyed(key)
    whole = len(message) & ~7
    last: int = int.from_bytes(message[whole:], "little") | (len(message) & 0xFF) << 56
    for word in (*struct.unpack(f"<{whole // 8}Q", message[:whole]), last):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    v2 ^= 0xFF
    for _ in range(3):
        v0, v1, v2, v3 = _round(v0, v1, v2, v3)
    hashed: int = v0 ^ v1 ^ v2 ^ v3
    return hashed


def begun(key: bytes) -> tuple[int, int, int, int]:
    """The state in which the first word is met: ``key`` has gone in, and that half of a round which meets no input."""
    v0, v1, v2, v3 = _keyed(key)
    v0 = v0 + v1 & _M
    v1 = (v1 << 13 | v1 >> 51) & _M ^ v0
    v0 = (v0 << 32 | v0 >> 32) & _M
    return v0, v1, v2, v3


def _keyed(key: bytes) -> tuple[int, int, int, int]:
    k0, k1 = struct.unpack("<QQ", key)
    return k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573


def _round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = v0 + v1 & _M
    v1 = (v1 << 13 | v1 >> 51) & _M ^ v0
    v0 = (v0 << 32 | v0 >> 32) & _M
    v2 = v2 + v3 & _M
    v3 = (v3 << 16 | v3 >> 48) & _M ^ v2
    v0 = v0 + v3 & _M
    v3 = (v3 << 21 | v3 >> 43) & _M ^ v0
    v2 = v2 + v1 & _M
    v1 = (v1 << 17 | v1 >> 47) & _M ^ v2
    v2 = (v2 << 32 | v2 >> 32) & _M
    return v0, v1, v2, v3
