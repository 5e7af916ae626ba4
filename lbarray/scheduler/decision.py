"""The packet decision of ``bpf/scheduler.bpf.c``, in Python: what the program is tested against."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

import attrs

from lbarray.scheduler.abi import Verdict, mapped
from lbarray.values import Address, HashBy, ServiceId, WorkerTarget

__all__ = ["Decision", "decide", "hash_flow"]

_MASK = 0xFFFFFFFF


def _mix(hash_: int, word: int) -> int:
    word = word * 0xCC9E2D51 & _MASK
    word = (word << 15 | word >> 17) & _MASK
    word = word * 0x1B873593 & _MASK
    hash_ ^= word
    hash_ = (hash_ << 13 | hash_ >> 19) & _MASK
    return (hash_ * 5 + 0xE6546B64) & _MASK


def hash_flow(source: bytes, source_port: int, port: int, hash_by: HashBy, seed: int) -> int:
    """The hash of a flow, 32 bits (MurmurHash3's steps). ``source`` is sixteen octets."""
    value = seed
    for word in struct.unpack("!4I", source):
        value = _mix(value, word)
    if hash_by is HashBy.CONNECTION:
        value = _mix(value, source_port << 16 | port)
    value ^= value >> 16
    value = value * 0x85EBCA6B & _MASK
    value ^= value >> 13
    value = value * 0xC2B2AE35 & _MASK
    return value ^ value >> 16


@attrs.frozen
class Decision:
    """What becomes of a frame. ``frame`` is what leaves, where it is forwarded."""

    verdict: Verdict
    worker: int | None = None
    frame: bytes = b""


@attrs.frozen
class View:
    """What the program's maps hold."""

    active: frozenset[Address]
    mac: bytes
    seed: int
    table_size: int
    services: Mapping[ServiceId, HashBy]
    rows: Mapping[int, int]
    workers: Mapping[int, WorkerTarget]


def decide(frame: bytes, view: View) -> Decision:
    """The same decision as the program's, for an Ethernet frame."""
    if len(frame) < 14:
        return Decision(Verdict.PASSED_TRUNCATED)
    packet = frame[14:]
    source: Address
    vip: Address
    if frame[12:14] == b"\x08\x00":
        if len(packet) < 20 or (packet[0] & 0x0F) < 5:
            return Decision(Verdict.PASSED_TRUNCATED)
        if packet[9] != 6:
            return Decision(Verdict.PASSED_NOT_TCP)
        if struct.unpack_from("!H", packet, 6)[0] & 0x3FFF:
            return Decision(Verdict.PASSED_FRAGMENT)
        source, vip = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        segment = packet[(packet[0] & 0x0F) * 4 :]
    elif frame[12:14] == b"\x86\xdd":
        if len(packet) < 40:
            return Decision(Verdict.PASSED_TRUNCATED)
        if packet[6] == 44:
            return Decision(Verdict.PASSED_FRAGMENT)
        if packet[6] != 6:
            return Decision(Verdict.PASSED_NOT_TCP)
        source, vip = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        segment = packet[40:]
    else:
        return Decision(Verdict.PASSED_NOT_IP)
    if len(segment) < 20:
        return Decision(Verdict.PASSED_TRUNCATED)
    source_port, port = struct.unpack_from("!HH", segment)
    hash_by = view.services.get(ServiceId(vip, port))
    if hash_by is None:
        return Decision(Verdict.PASSED_NO_SERVICE)
    if vip not in view.active:
        return Decision(Verdict.PASSED_INACTIVE)
    value = hash_flow(mapped(source), source_port, port, hash_by, view.seed)
    worker = view.workers.get(view.rows.get(value % view.table_size, -1)) if view.table_size else None
    if worker is None:
        return Decision(Verdict.PASSED_NO_WORKER)
    if worker.local:
        return Decision(Verdict.PASSED_LOCAL, worker.index)
    return Decision(Verdict.FORWARDED, worker.index, worker.mac + view.mac + frame[12:])
