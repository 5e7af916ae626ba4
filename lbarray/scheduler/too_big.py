"""What a client is told whose packet does not fit into the tunnel to its worker: how large a packet may be.

"Fragmentation needed" (RFC 792, RFC 1191 §4) or "packet too big" (RFC 4443 §3.2, RFC 8201), from the VIP.
"""

from __future__ import annotations

import struct

from lbarray.scheduler.abi import QUOTED_OCTETS

__all__ = ["RateLimit", "too_big_answer"]

_IPV4, _IPV6 = b"\x08\x00", b"\x86\xdd"
_ICMP, _ICMPV6, _TTL = 1, 58, 64
#: No network carries less (RFC 791 §3.2, RFC 8200 §5); a host that is told so pays no heed, or breaks.
_LEAST = {_IPV4: 68, _IPV6: 1280}


def too_big_answer(frame: bytes, fits: int, mac: bytes) -> bytes:
    """The frame that answers ``frame``; empty where its sender could not make use of it.

    :param frame: Ethernet without tags; its beginning will do.
    :param fits: octets of a packet that does; :param mac: this node's address.
    """
    kind, packet = frame[12:14], frame[14 : 14 + QUOTED_OCTETS]
    if fits < _LEAST.get(kind, fits + 1) or len(packet) < 40:
        return b""
    ethernet = frame[6:12] + mac + kind
    if kind == _IPV4:
        client, vip = packet[12:16], packet[16:20]
        message = struct.pack("!BBHHH", 3, 4, 0, 0, fits) + packet
        message = message[:2] + _checksum(message) + message[4:]
        head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 20 + len(message), 0, 0x4000, _TTL, _ICMP, 0) + vip + client
        return ethernet + head[:10] + _checksum(head) + head[12:] + message
    client, vip = packet[8:24], packet[24:40]
    message = struct.pack("!BBHI", 2, 0, 0, fits) + packet
    pseudo = vip + client + struct.pack("!II", len(message), _ICMPV6)
    message = message[:2] + _checksum(pseudo + message) + message[4:]
    return ethernet + struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, _TTL) + vip + client + message


class RateLimit:
    """A bucket of ``burst`` tokens that fills by ``rate`` a second (RFC 1812 §4.3.2.8, RFC 4443 §2.4)."""

    def __init__(self, rate: float = 100.0, burst: float = 50.0) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Is there a token? It is taken. ``now``: seconds, of any clock that does not go back."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _checksum(octets: bytes) -> bytes:
    """RFC 1071."""
    octets += b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")
