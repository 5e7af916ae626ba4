"""A bounded, sampled capture of packets to and from some addresses, as a pcap file."""

from __future__ import annotations

import ctypes
import select
import socket
import struct
import time
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["Bounds", "capture_packets", "concerns", "pcap_header", "pcap_record"]

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_LINKTYPE_ETHERNET = 1
#: Frames are cut by us: the kernel would forget how long they were.
_WHOLE = 0x40000
#: A 32-bit random number, as classic BPF reads it (``SKF_AD_OFF + SKF_AD_RANDOM``).
_RANDOM = 0xFFFFF000 + 56


class Beyond(Protocol):
    """Shows packets that never reach the kernel's taps; all of them are for the addresses that are captured."""

    def fileno(self) -> int:
        """Readable when there are some."""

    def read(self) -> list[tuple[bytes, int]]:
        """(frame, or its beginning; its whole length) of each."""

    def missed(self) -> int:
        """How many were lost for want of room."""


@attrs.frozen
class Bounds:
    """How much at most.

    :ivar sample: one packet of so many; :ivar seconds: for so long; :ivar packets: so many; :ivar octets: of each.
    """

    sample: int = 1
    seconds: float = 10.0
    packets: int = 10_000
    octets: int = 128


def pcap_header(octets: int) -> bytes:
    """The head of a pcap file of Ethernet frames with microseconds (draft-ietf-opsawg-pcap)."""
    return struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, octets, _LINKTYPE_ETHERNET)


def pcap_record(frame: bytes, length: int, at: float) -> bytes:
    """One packet: what of it was kept, its real length, and when, in seconds since the epoch."""
    seconds = int(at)
    return struct.pack("=IIII", seconds, int((at - seconds) * 1e6), len(frame), length) + frame


def concerns(frame: bytes, addresses: Collection[Address]) -> bool:
    """Is this Ethernet frame from or to one of the addresses? One VLAN tag is passed over."""
    at = 18 if frame[12:14] == b"\x81\x00" else 14
    kind = frame[at - 2 : at]
    if kind == b"\x08\x00" and len(frame) >= at + 20:
        return any(IPv4Address(frame[place : place + 4]) in addresses for place in (at + 12, at + 16))
    if kind == b"\x86\xdd" and len(frame) >= at + 40:
        return any(IPv6Address(frame[place : place + 16]) in addresses for place in (at + 8, at + 24))
    return False


def _socket(interface: str, bounds: Bounds) -> socket.socket:
    steps = [(0x06, 0, 0, _WHOLE)]
    if bounds.sample > 1:
        steps = [
            (0x20, 0, 0, _RANDOM),
            (0x94, 0, 0, bounds.sample),
            (0x15, 0, 1, 0),
            (0x06, 0, 0, _WHOLE),
            (0x06, 0, 0, 0),
        ]
    program = b"".join(struct.pack("=HBBI", *step) for step in steps)
    tap = None
    try:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        held = ctypes.create_string_buffer(program, len(program))
        tap.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(steps), ctypes.addressof(held)))
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        tap.bind((interface, _ETH_P_ALL))
    except OSError as error:
        if tap is not None:
            tap.close()
        raise SystemRefused(f"capture on {interface}", errno=error.errno or 0, advice="run it as root") from None
    return tap


@attrs.define
class _File:
    """The file, as far as it is written."""

    out: BinaryIO
    bounds: Bounds
    written: int = 0

    @property
    def full(self) -> bool:
        return self.written >= self.bounds.packets

    def add(self, frame: bytes, length: int) -> None:
        if not self.full:
            self.out.write(pcap_record(frame[: self.bounds.octets], length, time.time()))
            self.written += 1


def capture_packets(
    interface: str, addresses: Collection[Address], path: Path, bounds: Bounds, beyond: Beyond | None = None
) -> tuple[int, int]:
    """Write packets until a bound is met or Ctrl-C; how many, and how many the kernel dropped for want of room.

    :param beyond: shows what the kernel's taps on ``interface`` do not.
    :raises SystemRefused: no privilege, no such interface, or the file cannot be written.
    """
    until = time.monotonic() + bounds.seconds
    with _socket(interface, bounds) as tap:
        sources: list[socket.socket | Beyond] = [tap] if beyond is None else [tap, beyond]
        try:
            with path.open("wb") as out:
                out.write(pcap_header(bounds.octets))
                file = _File(out, bounds)
                try:
                    while not file.full and (left := until - time.monotonic()) > 0:
                        readable = select.select(sources, [], [], min(left, 0.5))[0]
                        if tap in readable:
                            buffer = bytearray(bounds.octets)
                            # MSG_TRUNC: the length is that of the whole frame, however little we keep of it.
                            length = tap.recv_into(buffer, bounds.octets, socket.MSG_TRUNC)
                            frame = bytes(buffer[:length])
                            if concerns(frame, addresses):
                                file.add(frame, length)
                        if beyond in readable and beyond is not None:
                            for frame, length in beyond.read():
                                file.add(frame, length)
                except KeyboardInterrupt:
                    pass
        except OSError as error:
            raise SystemRefused(f"write {path}", errno=error.errno or 0) from None
        statistics = tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    missed = 0 if beyond is None else beyond.missed()
    return file.written, struct.unpack("=II", statistics)[1] + missed
