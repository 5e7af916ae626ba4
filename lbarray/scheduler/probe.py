"""Probing workers on the way that their clients' packets go: segments, answers, and what follows from them.

A probe is a TCP SYN from the scheduler's own address to the VIP, sent to the worker as a client's packet would be. A
worker that answers SYN/ACK has the VIP, lets its packets in and out, and has a listener; a reset ends the matter before
anything is accepted (RFC 9293, section 3.10.7.4). Nothing else would notice a VIP that is missing on a loopback
interface, a packet filter, or a tunnel that loses what is full-sized.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

from lbarray.values import Address, NodeReport, Role, ServiceId

__all__ = ["Answer", "Heard", "PathTable", "Probe", "Verdict", "able_workers", "read_answer", "reset", "syn"]

_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_TCP = 6


@attrs.frozen
class Probe:
    """One try. ``source`` and ``port``: the scheduler's own; ``sequence``: of the SYN, random."""

    service: ServiceId
    source: Address
    port: int
    sequence: int


class Answer(enum.Enum):
    """What came back."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


@attrs.frozen
class Heard:
    """An answer. ``port`` is the probe's, ``acknowledged`` the number that its SYN led to expect."""

    answer: Answer
    vip: Address
    service_port: int
    port: int
    acknowledged: int

    def fits(self, probe: Probe) -> bool:
        """Is it the answer to this probe, and not somebody's guess?"""
        place = (self.vip, self.service_port, self.port)
        expected = (probe.sequence + 1) & 0xFFFFFFFF
        return place == (probe.service.address, probe.service.port, probe.port) and self.acknowledged == expected


def _sum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packet(probe: Probe, flags: int, sequence: int, options: bytes, content: bytes) -> bytes:
    source, to = probe.source.packed, probe.service.address.packed
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", probe.port, probe.service.port, sequence, 0, offset, flags, 65535, 0, 0)
    segment = head + options + content
    pseudo = source + to + struct.pack("!IHH", len(segment), 0, _TCP)
    segment = segment[:16] + struct.pack("!H", _sum(pseudo + segment)) + segment[18:]
    if probe.source.version == 6:
        return struct.pack("!IHBB", 0x60000000, len(segment), _TCP, 64) + source + to + segment
    # Don't fragment: a full-sized probe shall be lost where a client's packet would be.
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0x4000, 64, _TCP, 0) + source + to
    return header[:10] + struct.pack("!H", _sum(header)) + header[12:] + segment


def syn(probe: Probe, size: int = 0) -> bytes:
    """The IP packet of a probe, filled up to ``size`` octets: what a SYN carries is not looked at without a cookie
    of TCP Fast Open (RFC 7413), so a full-sized one is answered like a small one, if it arrives."""
    options = struct.pack("!BBH", 2, 4, 1460)
    bare = len(probe.source.packed) * 2 + (12 if probe.source.version == 4 else 8) + 20 + len(options)
    return _packet(probe, _SYN, probe.sequence, options, b"\0" * max(0, size - bare))


def reset(probe: Probe) -> bytes:
    """The IP packet that takes an answered probe back."""
    return _packet(probe, _RST, (probe.sequence + 1) & 0xFFFFFFFF, b"", b"")


def read_answer(packet: bytes) -> Heard | None:
    """What an IP packet that came in says, if it is a SYN/ACK or a reset. Never raises."""
    vip: Address
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        if packet[9] != _TCP or struct.unpack_from("!H", packet, 6)[0] & 0x1FFF:
            return None
        vip, segment = IPv4Address(packet[12:16]), packet[(packet[0] & 0x0F) * 4 :]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        if packet[6] != _TCP:
            return None
        vip, segment = IPv6Address(packet[8:24]), packet[40:]
    else:
        return None
    if len(segment) < 20:
        return None
    service_port, port, _, acknowledged, _, flags = struct.unpack_from("!HHIIBB", segment)
    if flags & _RST:
        answer = Answer.REFUSED
    elif flags & (_SYN | _ACK) == _SYN | _ACK:
        answer = Answer.ACCEPTED
    else:
        return None
    return Heard(answer, vip, service_port, port, acknowledged)


class Verdict(enum.Enum):
    """Of one worker and service."""

    UNPROVEN = "unproven"
    ABLE = "able"
    UNABLE = "unable"


@attrs.define
class _Path:
    life: int
    verdict: Verdict
    proved: bool = False
    streak: int = 0
    why: str = ""


class PathTable:
    """Every worker's path for every service, and what the probes have shown.

    One answer proves a path that was never tried; after that, changes take several in a row.

    :param fall: so many lost in a row make a path unable.
    :param rise: so many answered in a row make it able again.
    """

    def __init__(self, *, fall: int, rise: int) -> None:
        self._fall = fall
        self._rise = rise
        self._paths: dict[tuple[str, ServiceId], _Path] = {}

    def judge(self, *, fall: int, rise: int) -> None:
        """From now on it takes so many."""
        self._fall, self._rise = fall, rise

    def watch(
        self, workers: Mapping[str, int], services: Iterable[ServiceId], assumed: Collection[str] = ()
    ) -> list[tuple[str, ServiceId]]:
        """These are the workers, by name with their incarnation; what has to be tried for the first time.

        :param assumed: workers that are able until shown otherwise: those that another scheduler has proved.
        """
        wanted = {(name, service): life for name, life in workers.items() for service in services}
        self._paths = {key: path for key, path in self._paths.items() if key in wanted and path.life == wanted[key]}
        fresh = [key for key in wanted if key not in self._paths]
        for key in fresh:
            verdict = Verdict.ABLE if key[0] in assumed else Verdict.UNPROVEN
            self._paths[key] = _Path(wanted[key], verdict)
        return fresh

    def paths(self) -> list[tuple[str, ServiceId]]:
        """Everything to try."""
        return list(self._paths)

    def passed(self, worker: str, service: ServiceId) -> bool:
        """A probe was answered. Has the verdict changed?"""
        path = self._paths.get((worker, service))
        if path is None:
            return False
        path.why, path.proved = "", True
        if path.verdict is Verdict.ABLE:
            path.streak = 0
            return False
        path.streak = max(1, path.streak + 1)
        if path.verdict is Verdict.UNABLE and path.streak < self._rise:
            return False
        path.verdict, path.streak = Verdict.ABLE, 0
        return True

    def failed(self, worker: str, service: ServiceId, why: str) -> bool:
        """A probe was lost or refused. Has the verdict changed?"""
        path = self._paths.get((worker, service))
        if path is None:
            return False
        path.why = why
        if path.verdict is Verdict.UNABLE:
            path.streak = 0
            return False
        path.streak += 1
        if path.streak < self._fall:
            return False
        path.verdict, path.streak = Verdict.UNABLE, 0
        return True

    def able(self) -> frozenset[str]:
        """Workers whose paths are all able.

        A service that a worker has never answered for is passed over as long as it answers for another: while the
        nodes take up a new configuration one after the other, a new service is not everywhere at once.
        """
        proved = {name for (name, _), path in self._paths.items() if path.proved}
        unable = {
            name
            for (name, _), path in self._paths.items()
            if path.verdict is not Verdict.ABLE and (path.proved or name not in proved)
        }
        return frozenset({name for name, _ in self._paths} - unable)

    def verdicts(self, worker: str) -> dict[ServiceId, tuple[Verdict, str]]:
        """Of one worker, by service, with the reason of the last failure."""
        return {service: (path.verdict, path.why) for (name, service), path in self._paths.items() if name == worker}


#: Of those that judge, the part whose "no" is enough.
_ENOUGH: Final = 0.5


def able_workers(members: Sequence[NodeReport]) -> list[NodeReport]:
    """Who gets new connections: accepting, not draining, and proved by the schedulers that probe.

    Every node computes this from the same reports. While nobody probes, nobody is doubted; of several schedulers, as
    many as half must say no. One that has yielded its VIPs, and only forwards yet what comes late, has no say any more.
    """
    judges = [
        report for report in members if Role.SCHEDULER in report.roles and report.owned and report.able is not None
    ]
    found = []
    for report in members:
        if not report.accepting or report.draining:
            continue
        against = sum(
            judge.name != report.name and judge.able is not None and report.name not in judge.able for judge in judges
        )
        if not against or against < _ENOUGH * len(judges):
            found.append(report)
    return found
