"""From a frame to the flow it belongs to, as the packet program reads it (``bpf/parse.h``, ``bpf/transport.h``)."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import attrs

from lbarray.scheduler.abi import MARK_ONCE, MARK_TWICE, PASSES_OF_TWO_ROWS, Verdict

__all__ = ["Kind", "Packet", "Refused", "parse"]

_VLAN = (0x8100, 0x88A8)
_IPV4, _IPV6 = 0x0800, 0x86DD
_EXTENSIONS = (0, 43, 44, 51, 60)
_MAX_EXTENSIONS = 4
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_MAPPED = b"\0" * 10 + b"\xff\xff"


class Kind:
    """What a packet's flow was read from."""

    SEGMENT, DATAGRAM, QUOTED, LATER_FRAGMENT = range(4)


class Refused(Exception):
    """The packet is no good, or not ours.

    :ivar packet: what could be read of it.
    """

    def __init__(self, verdict: Verdict, packet: Packet) -> None:
        super().__init__(verdict)
        self.verdict = verdict
        self.packet = packet


@attrs.define
class Packet:
    """A frame, read.

    :ivar hop: 0 from a client, 1 scheduled by another node, 2 and more passed on once and more often.
    :ivar sender: index of the worker that passed it on.
    :ivar layer3: where its IP header begins; :ivar fragment: (identification, protocol) of one of several.
    """

    layer3: int
    ethertype: int
    hop: int
    source: bytes = b""
    vip: bytes = b""
    source_port: bytes = b""
    port: bytes = b""
    protocol: int = 0
    kind: int = Kind.SEGMENT
    tcp_flags: int = 0
    sequence: bytes = bytes(4)
    is_first: bool = False
    fragment: tuple[bytes, int] | None = None
    sender: int | None = None

    @property
    def begins_connection(self) -> bool:
        """A SYN without an ACK."""
        return self.kind == Kind.SEGMENT and self.tcp_flags & (_SYN | _ACK) == _SYN

    def refuse(self, verdict: Verdict) -> Refused:
        """The reason to stop, as an exception."""
        return Refused(verdict, self)


def parse(frame: bytes, mac: bytes, peers: Mapping[bytes, int], hop: int = 0, sender: int | None = None) -> Packet:
    """The packet in an Ethernet frame.

    :param mac: this node's address; :param peers: their worker indices by those of the other nodes.
    :param hop: how it came, and :param sender: from whom, where that is known.
    :raises Refused: it has no flow, with the reason.
    """
    packet = _parse_ethernet(frame, mac, peers, hop)
    if sender is not None:
        packet.sender = sender
    content = frame[packet.layer3 :]
    if packet.ethertype == _IPV4:
        protocol, rest, left = _parse_ipv4(content, packet)
    elif packet.ethertype == _IPV6:
        protocol, rest, left = _parse_ipv6(content, packet)
    else:
        raise packet.refuse(Verdict.PASSED_NOT_IP)
    if packet.kind != Kind.LATER_FRAGMENT:
        _parse_transport(protocol, rest, left, packet)
    return packet


def _parse_ethernet(frame: bytes, mac: bytes, peers: Mapping[bytes, int], hop: int) -> Packet:
    if len(frame) < 14:
        raise Packet(0, 0, 0).refuse(Verdict.PASSED_NOT_IP)
    layer3, source = 14, frame[6:12]
    ethertype = int.from_bytes(frame[12:14], "big")
    for _ in range(2):
        if ethertype not in _VLAN:
            break
        if len(frame) < layer3 + 4:
            raise Packet(layer3, 0, 0).refuse(Verdict.PASSED_NOT_IP)
        ethertype = int.from_bytes(frame[layer3 + 2 : layer3 + 4], "big")
        layer3 += 4
    if ethertype in (MARK_ONCE, MARK_TWICE):
        if len(frame) <= layer3 or source not in peers:
            raise Packet(layer3, 0, 0).refuse(Verdict.PASSED_NOT_IP)
        hop = 2 if ethertype == MARK_ONCE else 3
        ethertype = _IPV4 if frame[layer3] >> 4 == 4 else _IPV6
        packet = Packet(layer3, ethertype, hop, sender=peers[source])
    elif source == mac:
        raise Packet(layer3, 0, 0).refuse(Verdict.PASSED_AGAIN)
    else:
        packet = Packet(layer3, ethertype, hop or (1 if source in peers else 0))
    # A switch that does not know a node's port yet sends its frames to all.
    if packet.hop and frame[:6] != mac:
        raise packet.refuse(Verdict.PASSED_ELSEWHERE)
    return packet


def _count_passes(packet: Packet, life: int) -> None:
    """Beyond twice a packet's time to live says how often it was passed on."""
    if packet.hop == 3 and life <= PASSES_OF_TWO_ROWS - 2:
        packet.hop = PASSES_OF_TWO_ROWS + 2 - max(1, life)


def _parse_ipv4(content: bytes, packet: Packet) -> tuple[int, bytes, int]:
    if len(content) < 20:
        raise packet.refuse(Verdict.PASSED_NOT_IP)
    packet.source, packet.vip = _MAPPED + content[12:16], _MAPPED + content[16:20]
    total, _, offset = struct.unpack_from("!HHH", content, 2)
    total = total or len(content)
    header, first = (content[0] & 15) * 4, content[12]
    if content[0] >> 4 != 4 or header < 20 or total < header or not first or first == 127 or first >= 224:
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    if packet.source == packet.vip:
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    if total > len(content):
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    _count_passes(packet, content[8])
    if offset & 0x3FFF:
        packet.fragment = (content[4:6] + b"\0\0", content[9])
        if offset & 0x1FFF == 1:
            raise packet.refuse(Verdict.DROPPED_BAD_IP)
        if offset & 0x1FFF:
            packet.kind = Kind.LATER_FRAGMENT
        else:
            packet.is_first = True
    return content[9], content[header:], total - header


def _parse_ipv6(content: bytes, packet: Packet) -> tuple[int, bytes, int]:
    if len(content) < 40:
        raise packet.refuse(Verdict.PASSED_NOT_IP)
    packet.source, packet.vip = content[8:24], content[24:40]
    total = int.from_bytes(content[4:6], "big") + 40
    if total == 40:
        total = len(content)
    if content[0] >> 4 != 6 or content[8] == 0xFF or int.from_bytes(packet.source, "big") <= 1:
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    if packet.source.startswith(_MAPPED) or packet.vip.startswith(_MAPPED):
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    if total > len(content):
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    _count_passes(packet, content[7])
    following, left, rest = content[6], total - 40, content[40:]
    for _ in range(_MAX_EXTENSIONS):
        if following not in _EXTENSIONS:
            break
        if len(rest) < 8:
            raise packet.refuse(Verdict.DROPPED_TRUNCATED)
        length = {44: 8, 51: (rest[1] + 2) * 4}.get(following, (rest[1] + 1) * 8)
        if length > left:
            raise packet.refuse(Verdict.DROPPED_TRUNCATED)
        left -= length
        if following == 44:
            offset = int.from_bytes(rest[2:4], "big")
            packet.fragment = (rest[4:8], rest[0])
            if offset & ~7:
                packet.kind = Kind.LATER_FRAGMENT
                return rest[0], b"", 0
            packet.is_first = bool(offset & 1)
        following, rest = rest[0], rest[length:]
    if following in _EXTENSIONS:
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    return following, rest, left


def _parse_transport(protocol: int, rest: bytes, left: int, packet: Packet) -> None:
    if protocol == _TCP:
        _parse_tcp(rest, left, packet)
    elif protocol == _UDP:
        if len(rest) < 8 or left < 8:
            raise packet.refuse(Verdict.DROPPED_TRUNCATED)
        packet.source_port, packet.port = rest[0:2], rest[2:4]
        packet.protocol, packet.kind = _UDP, Kind.DATAGRAM
    elif packet.is_first:
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    elif protocol == _ICMP and packet.ethertype == _IPV4:
        _parse_icmp(rest, packet)
    elif protocol == _ICMPV6 and packet.ethertype == _IPV6:
        _parse_icmpv6(rest, packet)
    else:
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)


def _parse_tcp(rest: bytes, left: int, packet: Packet) -> None:
    if len(rest) < 20 or left < 20:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    packet.source_port, packet.port, packet.protocol = rest[0:2], rest[2:4], _TCP
    packet.tcp_flags, packet.sequence = rest[13], rest[4:8]
    flags = packet.tcp_flags
    header = rest[12] >> 4
    if header < 5 or b"\0\0" in (packet.source_port, packet.port) or not flags & (_SYN | _RST | _ACK):
        raise packet.refuse(Verdict.DROPPED_BAD_TCP)
    if flags & _SYN and flags & (_FIN | _RST):
        raise packet.refuse(Verdict.DROPPED_BAD_TCP)
    if header * 4 > left:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)


def _parse_icmp(rest: bytes, packet: Packet) -> None:
    if len(rest) < 8:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    if rest[0] not in (3, 11, 12):
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    quoted = rest[8:]
    if len(quoted) < 20:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    header = (quoted[0] & 15) * 4
    if quoted[0] >> 4 != 4 or header < 20:
        raise packet.refuse(Verdict.DROPPED_BAD_IP)
    if quoted[12:16] != packet.vip[12:] or int.from_bytes(quoted[6:8], "big") & 0x1FFF:
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    packet.source = _MAPPED + quoted[16:20]
    _parse_quoted(quoted[9], quoted[header:], packet)


def _parse_icmpv6(rest: bytes, packet: Packet) -> None:
    if len(rest) < 8:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    if not 1 <= rest[0] <= 4:
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    quoted = rest[8:]
    if len(quoted) < 40:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    if quoted[8:24] != packet.vip:
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    packet.source = quoted[24:40]
    _parse_quoted(quoted[6], quoted[40:], packet)


def _parse_quoted(protocol: int, rest: bytes, packet: Packet) -> None:
    if protocol not in (_TCP, _UDP):
        raise packet.refuse(Verdict.PASSED_OTHER_PROTOCOL)
    if len(rest) < 4:
        raise packet.refuse(Verdict.DROPPED_TRUNCATED)
    packet.source_port, packet.port = rest[2:4], rest[0:2]
    packet.protocol, packet.kind = protocol, Kind.QUOTED
