"""What a sender left to its hardware, as packet sockets tell it (``struct virtio_net_hdr``): checksums that are not
there yet, and packets coalesced into one. Tunnels need both told anew, or done."""

from __future__ import annotations

import struct

__all__ = ["is_coalesced", "segments", "shifted", "without_tags"]

#: flags, kind of coalescing, octets of headers, of a segment's payload, where the checksummed part begins, and where in
#: it the checksum is.
HEADER = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM = 1
_TCPV4, _TCPV6, _ECN = 1, 4, 0x80
_FIN, _PSH, _CWR = 0x01, 0x08, 0x80


def is_coalesced(header: bytes) -> bool:
    """Is the frame behind this header several TCP segments?"""
    return header[1] & ~_ECN in (_TCPV4, _TCPV6)


def shifted(header: bytes, by: int) -> bytes:
    """The header of a frame that has become longer by ``by`` octets before the part that it tells of."""
    flags, kind, head, size, start, offset = HEADER.unpack(header)
    if not flags & _NEEDS_CHECKSUM and not kind:
        return header
    return HEADER.pack(flags, kind, max(0, head + by), size, max(0, start + by), offset)


def without_tags(header: bytes, frame: bytes) -> tuple[bytes, bytes]:
    """A frame without its VLAN tags."""
    while frame[12:14] in (b"\x81\0", b"\x88\xa8"):
        header, frame = shifted(header, -4), frame[:12] + frame[16:]
    return header, frame


def segments(header: bytes, frame: bytes) -> list[tuple[bytes, bytes]]:
    """The TCP segments that a frame was coalesced from, each with the header that has its checksum finished.

    A frame that is not what its header says is given back as it came.
    """
    at = 14
    while frame[at - 2 : at] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    size, version = HEADER.unpack(header)[3], frame[at] >> 4 if len(frame) > at else 0
    tcp = HEADER.unpack(header)[4] or (at + (frame[at] & 15) * 4 if version == 4 else at + 40)
    if not size or version not in (4, 6) or len(frame) < tcp + 20:
        return [(header, frame)]
    payload = tcp + (frame[tcp + 12] >> 4) * 4
    sequence, flags = int.from_bytes(frame[tcp + 4 : tcp + 8], "big"), frame[tcp + 13]
    identification = int.from_bytes(frame[at + 4 : at + 6], "big")
    found: list[tuple[bytes, bytes]] = []
    for number, begin in enumerate(range(payload, len(frame), size)):
        content = frame[begin : begin + size]
        head = bytearray(frame[:payload])
        flags_now = flags & ~(_FIN | _PSH) if begin + size < len(frame) else flags
        head[tcp + 13] = flags_now & ~_CWR if number else flags_now
        head[tcp + 4 : tcp + 8] = (sequence + begin - payload & 0xFFFFFFFF).to_bytes(4, "big")
        length = payload - tcp + len(content)
        if version == 4:
            head[at + 2 : at + 4] = (tcp - at + length).to_bytes(2, "big")
            head[at + 4 : at + 6] = (identification + number & 0xFFFF).to_bytes(2, "big")
            head[at + 10 : at + 12] = b"\0\0"
            head[at + 10 : at + 12] = (~_sum(bytes(head[at:tcp])) & 0xFFFF).to_bytes(2, "big")
            addresses = bytes(head[at + 12 : at + 20])
        else:
            head[at + 4 : at + 6] = (tcp - at - 40 + length).to_bytes(2, "big")
            addresses = bytes(head[at + 8 : at + 40])
        # The kernel adds up the rest (RFC 9293 §3.1: the pseudo-header).
        head[tcp + 16 : tcp + 18] = _sum(addresses + struct.pack("!HH", 6, length)).to_bytes(2, "big")
        found.append((HEADER.pack(_NEEDS_CHECKSUM, 0, payload, 0, tcp, 16), bytes(head) + content))
    return found or [(header, frame)]


def _sum(octets: bytes) -> int:
    """Sixteen bits of one's complement sum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
