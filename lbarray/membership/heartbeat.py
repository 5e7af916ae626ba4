"""Heartbeats as datagrams: authenticated, and worth nothing to whoever recorded them.

Layout: ``magic (4) | HMAC-SHA256 (32) | fixed fields | node name``. The HMAC covers everything behind it,
with a key derived from the array's shared secret and name (RFC 2104, RFC 5869's extract step).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs

from lbarray.errors import Unreadable
from lbarray.values import Load, NodeReport, Role

__all__ = ["BadHeartbeat", "Beat", "HeartbeatCodec", "Kind", "ReplayGuard"]

MAGIC = b"LBA1"
_MAC_OCTETS = 32
_FIXED = struct.Struct("!BQQQBBHIff6s16s")
_HEADER = len(MAGIC) + _MAC_OCTETS
LONGEST = 512


class Kind(enum.IntEnum):
    """What a datagram says of its sender."""

    ALIVE = 1
    LEAVING = 2


class _Flag(enum.IntFlag):
    ACCEPTING = 1
    DRAINING = 2


class BadHeartbeat(Unreadable):
    """A datagram that is not a fresh heartbeat of this array. ``why`` is its counter's label."""

    reason = "heartbeat"


@attrs.frozen
class Beat:
    """One heartbeat.

    :ivar sequence: grows with each datagram of one incarnation.
    :ivar sent_at: the sender's clock, seconds since the epoch.
    """

    kind: Kind
    sequence: int
    sent_at: float
    report: NodeReport


class HeartbeatCodec:
    """Signs and verifies.

    :param secret: the shared key; surrounding white space does not count.
    :param array_name: arrays that share a key by accident still do not mix.
    """

    def __init__(self, *, secret: bytes, array_name: str) -> None:
        self._key = hmac.digest(b"lbarray heartbeat " + array_name.encode(), secret.strip(), "sha256")

    def encode(self, beat: Beat) -> bytes:
        """The datagram."""
        report = beat.report
        address = report.address
        octets = address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed
        flags = (_Flag.ACCEPTING if report.accepting else 0) | (_Flag.DRAINING if report.draining else 0)
        body = (
            _FIXED.pack(
                beat.kind,
                report.incarnation,
                beat.sequence,
                round(beat.sent_at * 1000),
                report.roles.value,
                flags,
                report.weight,
                min(report.load.connections, 0xFFFFFFFF),
                report.load.requests_per_s,
                report.load.cpu,
                report.mac.ljust(6, b"\0"),
                octets,
            )
            + report.name.encode()
        )
        return MAGIC + hmac.digest(self._key, body, hashlib.sha256) + body

    def decode(self, datagram: bytes) -> Beat:
        """:raises BadHeartbeat: not ours, or not signed with our key."""
        if len(datagram) > LONGEST or len(datagram) <= _HEADER + _FIXED.size or not datagram.startswith(MAGIC):
            raise BadHeartbeat("no_heartbeat", f"{len(datagram)} octets that are no heartbeat of this version")
        body = datagram[_HEADER:]
        if not hmac.compare_digest(datagram[len(MAGIC) : _HEADER], hmac.digest(self._key, body, hashlib.sha256)):
            raise BadHeartbeat("wrong_key", "a heartbeat that is signed with another key")
        kind, incarnation, sequence, sent_ms, roles, flags, weight, connections, rate, cpu, mac, octets = (
            _FIXED.unpack_from(body)
        )
        try:
            report = NodeReport(
                name=body[_FIXED.size :].decode(),
                address=_address(octets),
                mac=mac if any(mac) else b"",
                roles=Role(roles),
                load=Load(connections, rate, cpu),
                accepting=bool(flags & _Flag.ACCEPTING),
                draining=bool(flags & _Flag.DRAINING),
                weight=weight,
                incarnation=incarnation,
            )
            return Beat(Kind(kind), sequence, sent_ms / 1000, report)
        except ValueError:
            raise BadHeartbeat("no_heartbeat", "a signed heartbeat with fields that this version lacks") from None


def _address(octets: bytes) -> IPv4Address | IPv6Address:
    if octets[:12] == b"\0" * 10 + b"\xff\xff":
        return IPv4Address(octets[12:])
    return ip_address(octets)


class ReplayGuard:
    """Lets each heartbeat pass once, and none from the past.

    A sender's incarnation (its daemon's start) never goes back, its sequence only forward. That a node which
    restarted knows of nobody yet would let an old recording of a dead node in; so heartbeats must
    also be fresh by the wall clock, within ``max_skew_s``: clocks of an array need not agree better than that.
    """

    def __init__(self, max_skew_s: float = 60.0) -> None:
        self._max_skew_s = max_skew_s
        self._seen: dict[str, tuple[int, int]] = {}

    def admit(self, beat: Beat, wall_clock: float) -> None:
        """:raises BadHeartbeat: replayed, reordered, or from another time."""
        name = beat.report.name
        skew = beat.sent_at - wall_clock
        if abs(skew) > self._max_skew_s:
            raise BadHeartbeat(
                "wrong_time",
                f"a heartbeat of node {name} that is {skew:+.0f} s off our clock: an old recording, "
                "or the clocks differ (timedatectl)",
            )
        place = (beat.report.incarnation, beat.sequence)
        if place <= self._seen.get(name, (0, 0)):
            raise BadHeartbeat("replayed", f"a heartbeat of node {name} that was there before")
        self._seen[name] = place
