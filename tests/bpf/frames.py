"""Ethernet frames for tests: right ones, and odd in one way each."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from lbarray.values import Address

VIP, OTHER = IPv4Address("192.0.2.100"), IPv4Address("192.0.2.200")
VIP6 = IPv6Address("2001:db8::100")
CLIENT, CLIENT6 = "198.51.100.7", "2001:db8:1::7"
SYN, ACK, RST, FIN = 2, 16, 4, 1
ROUTER = b"\2\0\0\0\0\x99"
#: Loopback's.
OWN = bytes(6)


def tcp(
    sport: int = 40000,
    dport: int = 80,
    *,
    flags: int = ACK,
    offset: int = 5,
    options: int = 0,
    payload: bytes = b"GET /",
    sequence: int = 1,
) -> bytes:
    """A segment; ``offset``: words of its header as it says; ``options``: words that it has besides, and says."""
    words = (offset + options) << 4
    head = struct.pack("!HHIIBBHHH", sport, dport, sequence, 1, words, flags, 1000, 0, 0)
    return head + b"\1" * (4 * options) + payload


def udp(sport: int = 40000, dport: int = 80, payload: bytes = b"hello") -> bytes:
    """A datagram."""
    return struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload


def ipv4(
    content: bytes,
    source: str = CLIENT,
    to: Address = VIP,
    *,
    protocol: int = 6,
    options: int = 0,
    fragment: int = 0,
    version: int = 4,
    length: int | None = None,
    identification: int = 7,
    ttl: int = 64,
) -> bytes:
    """An IPv4 packet; ``options`` in words; ``fragment``: flags and offset."""
    header = 20 + 4 * options
    total = header + len(content) if length is None else length
    start = struct.pack("!BBHHHBBH", version << 4 | header // 4, 0, total, identification, fragment, ttl, protocol, 0)
    return start + IPv4Address(source).packed + to.packed + b"\1" * (4 * options) + content


def ipv6(
    content: bytes,
    source: str = CLIENT6,
    to: Address = VIP6,
    *,
    header: int = 6,
    version: int = 6,
    length: int | None = None,
) -> bytes:
    """An IPv6 packet."""
    octets = len(content) if length is None else length
    return struct.pack("!IHBB", version << 28, octets, header, 64) + ip_address(source).packed + to.packed + content


def ethernet(
    packet: bytes, *, source: bytes = ROUTER, ethertype: int | None = None, tags: tuple[int, ...] = (), to: bytes = OWN
) -> bytes:
    """A frame; ``tags``: VLAN identifiers, the outer first."""
    if ethertype is None:
        ethertype = 0x86DD if packet[:1] and packet[0] >> 4 == 6 else 0x0800
    tagged = b"".join(struct.pack("!HH", 0x8100 if tag == tags[-1] else 0x88A8, tag) for tag in tags)
    return to + source + tagged + struct.pack("!H", ethertype) + packet


def with_checksum(packet: bytes) -> bytes:
    """An IPv4 packet with the right header checksum (RFC 791)."""
    header = packet[:10] + b"\0\0" + packet[12:20]
    total: int = sum(struct.unpack("!10H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + (~total & 0xFFFF).to_bytes(2, "big") + packet[12:]


def web(source: str = CLIENT, sport: int = 40000, dport: int = 80, flags: int = ACK, to: Address = VIP) -> bytes:
    """A segment of a client over IPv4."""
    return ethernet(ipv4(tcp(sport, dport, flags=flags), source, to))


def web6(source: str = CLIENT6, sport: int = 40000, dport: int = 80, flags: int = ACK, to: Address = VIP6) -> bytes:
    """A segment of a client over IPv6."""
    return ethernet(ipv6(tcp(sport, dport, flags=flags), source, to))


def too_big(
    source: str = "203.0.113.1",
    client: str = CLIENT,
    sport: int = 40000,
    dport: int = 80,
    *,
    protocol: int = 6,
    message: int = 3,
) -> bytes:
    """A router's ICMP error (RFC 1191), or another ``message``, about a packet from the VIP to a client."""
    content = tcp(dport, sport, payload=b"")[:8] if protocol == 6 else udp(dport, sport)
    quoted = ipv4(content, str(VIP), IPv4Address(client), length=1500, protocol=protocol)
    return ethernet(ipv4(struct.pack("!BBHHH", message, 4, 0, 0, 1400) + quoted, source, VIP, protocol=1))


def too_big6(
    source: str = "2001:db8:2::1",
    client: str = CLIENT6,
    sport: int = 40000,
    dport: int = 80,
    *,
    protocol: int = 6,
    message: int = 2,
) -> bytes:
    """A router's ICMPv6 "packet too big" (RFC 4443 §3.2), or another ``message``, about a packet from the VIP to a
    client."""
    content = tcp(dport, sport, payload=b"") if protocol == 6 else udp(dport, sport)
    quoted = ipv6(content, str(VIP6), IPv6Address(client), header=protocol)
    return ethernet(ipv6(struct.pack("!BBHI", message, 0, 0, 1280) + quoted, source, VIP6, header=58))


def random_frame(chance: random.Random, peers: list[bytes]) -> bytes:
    """Anything: mostly nearly right, sometimes noise; cut short or with octets changed now and then."""
    port = chance.choice((80, 80, 443, 8080, 8080, 81))
    flags = chance.choice((SYN, SYN, ACK, ACK, ACK, ACK | 8, RST, SYN | ACK, FIN | ACK, 0, SYN | FIN, 255))
    segment = tcp(
        chance.randrange(65536) if chance.random() < 0.1 else 40000 + chance.randrange(50),
        port,
        flags=flags,
        offset=chance.choice((5, 5, 5, 5, 8, 4)),
        payload=bytes(chance.randrange(40)),
        sequence=chance.randrange(2),
    )
    protocol = chance.choice((6,) * 8 + (17, 47))
    if protocol == 17:
        segment = udp(40000, port)
    packet: bytes
    kind = chance.random()
    if kind < 0.1:
        make, messages = chance.choice(((too_big, (3, 3, 3, 11, 12, 8, 5)), (too_big6, (2, 2, 2, 1, 3, 4, 128))))
        frame = make(
            sport=40000 + chance.randrange(50),
            dport=port,
            protocol=chance.choice((6, 6, 6, 17, 1)),
            message=chance.choice(messages),
        )
        packet = frame[14:]
    elif kind < 0.55:
        packet = ipv4(
            segment,
            f"198.51.100.{chance.randrange(1, 40)}",
            VIP if chance.random() < 0.9 else OTHER,
            protocol=protocol,
            options=chance.choice((0, 0, 0, 1, 10)),
            fragment=chance.choice((0x4000,) * 6 + (0, 0x2000, 0x00B9, 1)),
            identification=chance.randrange(4),
            ttl=chance.choice((64, 64, 1, 3, 5)),
        )
    else:
        header = protocol
        for _ in range(chance.choice((0, 0, 0, 0, 1, 2, 5))):
            kind_of = chance.choice((0, 43, 60, 44, 51))
            offset = chance.choice((0, 1, 8)) if kind_of == 44 else 0
            words = chance.choice((0, 1)) if kind_of != 51 else 4
            body = {44: 6, 51: 22}.get(kind_of, 6 + 8 * words)
            segment = struct.pack("!BBH", header, words, offset) + chance.randbytes(1) * (body - 2) + segment
            header = kind_of
        packet = ipv6(segment, f"2001:db8:1::{chance.randrange(1, 40):x}", header=header)
    if chance.random() < 0.1:
        packet = packet[: chance.randrange(len(packet))]
    if chance.random() < 0.1:
        at = chance.randrange(min(60, len(packet))) if packet else 0
        packet = packet[:at] + chance.randbytes(1) + packet[at + 1 :]
    if chance.random() < 0.02:
        packet = chance.randbytes(chance.randrange(100))
    return ethernet(
        packet,
        source=chance.choice((ROUTER, ROUTER, ROUTER, *peers)),
        ethertype=chance.choice((None,) * 12 + (0x88B5, 0x88B6, 0x0806)),
        tags=chance.choice(((),) * 12 + ((5,), (6,), (100, 7), (100, 8, 7))),
    )
