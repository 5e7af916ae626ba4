"""Packets inside of packets, for workers beyond a router (``bpf/tunnel.h``): IPIP (RFC 2003, RFC 2473) and GUE
(draft-ietf-intarea-gue), with the number of times that a packet has been passed on."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import attrs

from lbarray.scheduler.abi import GUE_PORT, GUE_PRIVATE, PASSES_OF_TWO_ROWS, TUNNEL_MARK, mapped
from lbarray.scheduler.headers import Packet
from lbarray.values import WorkerTarget

__all__ = ["Found", "encapsulate", "find_tunnel", "outer_length"]

_IPV4, _IPV6 = 0x0800, 0x86DD
_PROTOCOL = {_IPV4: 4, _IPV6: 41}
_ETHERTYPE = {4: _IPV4, 41: _IPV6}
_UDP = 17
_TTL = 64


@attrs.frozen
class Found:
    """What another node has sent in a tunnel. ``frame``: without the outer headers; ``hop``: how it came;
    ``sender``: index of the worker that passed it on."""

    frame: bytes
    hop: int
    sender: int | None


def outer_length(worker: WorkerTarget) -> int:
    """Octets that the way to ``worker`` adds to a packet; 0 in its own segment."""
    if not worker.tunnel:
        return 0
    return (20 if worker.address.version == 4 else 40) + (16 if worker.tunnel == "gue" else 0)


def find_tunnel(frame: bytes, own: bytes, peers: Mapping[bytes, int]) -> Found | None:
    """What is in the tunnel that ``frame`` is, where it is one of another node to this one.

    :param own: this node's address, and ``peers`` worker indices by those of the others, sixteen octets each.
    """
    ethertype, content = int.from_bytes(frame[12:14], "big"), frame[14:]
    passes = 0
    if ethertype == _IPV4 and len(content) >= 20:
        identification, offset = struct.unpack_from("!HH", content, 4)
        source, to, protocol, length = mapped_octets(content[12:16]), mapped_octets(content[16:20]), content[9], 20
        if content[0] != 0x45 or offset & 0x3FFF:
            return None
        passes = identification & PASSES_OF_TWO_ROWS if identification >> 8 == TUNNEL_MARK else 0
    elif ethertype == _IPV6 and len(content) >= 40:
        source, to, protocol, length = content[8:24], content[24:40], content[6], 40
        if content[0] >> 4 != 6:
            return None
        passes = content[3] & PASSES_OF_TWO_ROWS if content[2] == TUNNEL_MARK else 0
    else:
        return None
    if protocol == _UDP:
        head = content[length : length + 16]
        if len(head) < 16:
            return None
        port, control, protocol, flags, private, passes = struct.unpack("!2xH4xBBHHBx", head)
        if (port, control, flags, private) != (GUE_PORT, 1, 0, GUE_PRIVATE):
            return None
        passes, length = passes & PASSES_OF_TWO_ROWS, length + 16
    if to != own or source not in peers or protocol not in _ETHERTYPE:
        return None
    if len(content) - length < (20 if protocol == 4 and ethertype == _IPV4 else 40):
        return None
    inner = frame[:12] + _ETHERTYPE[protocol].to_bytes(2, "big") + content[length:]
    return Found(inner, 1 + passes, peers[source] if passes else None)


def encapsulate(frame: bytes, packet: Packet, worker: WorkerTarget, own: bytes, mac: bytes, passes: int) -> bytes:
    """``frame`` in a tunnel to ``worker``."""
    inner = frame[packet.layer3 :]
    protocol = _PROTOCOL[packet.ethertype]
    if worker.tunnel == "gue":
        length = len(inner) + 16
        gue = struct.pack("!BBHHBB", 1, protocol, 0, GUE_PRIVATE, passes, 0)
        inner = _entropy(packet) + struct.pack("!HHH", GUE_PORT, length & 0xFFFF, 0) + gue + inner
        protocol = _UDP
    if worker.address.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(inner), TUNNEL_MARK << 8 | passes, 0x4000, _TTL, protocol, 0)
        head += own[12:] + worker.address.packed
        total: int = sum(struct.unpack("!10H", head))
        total = (total & 0xFFFF) + (total >> 16)
        total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
        outer, ethertype = head[:10] + total.to_bytes(2, "big") + head[12:], _IPV4
    else:
        label = bytes((0x60, 0, TUNNEL_MARK, passes))
        outer = label + struct.pack("!HBB", len(inner), protocol, _TTL) + own + mapped(worker.address)
        ethertype = _IPV6
    return worker.mac + mac + ethertype.to_bytes(2, "big") + outer + inner


def mapped_octets(address: bytes) -> bytes:
    """Four octets of an IPv4 address as sixteen."""
    return b"\0" * 10 + b"\xff\xff" + address


def _entropy(packet: Packet) -> bytes:
    """The outer source port: tells connections apart for those who spread packets by it."""
    words = struct.unpack("<4I", packet.source)
    mixed = words[1] ^ words[2] ^ words[3] ^ int.from_bytes(packet.source_port, "little")
    port = int.from_bytes((mixed ^ mixed >> 16).to_bytes(4, "little")[:2], "big")
    return (0xC000 | port & 0x3FFF).to_bytes(2, "big")
