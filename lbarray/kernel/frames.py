"""Whole frames through packet sockets, many with one call, as the kernel holds them (packet(7)).

A frame that this machine's kernel has coalesced, or whose checksum the sender left to its hardware, comes with a header
that says so (PACKET_VNET_HDR), and goes out again with the same header: the kernel then finishes the work. A VLAN tag
that the kernel has taken out (PACKET_AUXDATA) is put back.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Collection, Sequence

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["FrameSocket", "filter_for", "tagged"]

VNET_HEADER = 10
GUE_PORT = 6080
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
#: A control message of ``struct tpacket_auxdata``, and where in it are: its status, and the tag with its kind.
_AUXDATA, _STATUS, _TAG = 40, struct.Struct("=I"), struct.Struct("=HH")
_STATUS_AT, _TAG_AT, _VLAN_VALID, _VLAN_KIND_VALID = 16, 32, 1 << 4, 1 << 6
_SO_RCVBUFFORCE, _SO_ATTACH_FILTER = 33, 26
_RECEIVE_BUFFER = 8 << 20
_ADVICE = "run the node as root (CAP_NET_RAW and CAP_NET_ADMIN)"


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    _fields_ = [("header", _Header), ("length", ctypes.c_uint32)]


class _Batch:
    """Buffers for one recvmmsg or sendmmsg."""

    def __init__(self, count: int, size: int) -> None:
        self.memory = ctypes.create_string_buffer(count * size)
        memory = memoryview(self.memory).cast("B")
        self.places = [memory[place * size : (place + 1) * size] for place in range(count)]
        base = ctypes.addressof(self.memory)
        self.vectors = (_Vector * count)()
        self.messages = (_Message * count)()
        for place in range(count):
            self.vectors[place] = _Vector(base + place * size, size)
            self.messages[place].header.vectors = ctypes.addressof(self.vectors[place])
            self.messages[place].header.vector_count = 1
        self.control = ctypes.create_string_buffer(count * _AUXDATA)
        for place in range(count):
            self.messages[place].header.control = ctypes.addressof(self.control) + place * _AUXDATA
            self.messages[place].header.control_length = _AUXDATA

    def frame(self, place: int) -> bytes:
        """What was received, with its tag."""
        octets = bytes(self.places[place][: self.messages[place].length])
        (status,) = _STATUS.unpack_from(self.control, place * _AUXDATA + _STATUS_AT)
        if not status & _VLAN_VALID:
            return octets
        tag, kind = _TAG.unpack_from(self.control, place * _AUXDATA + _TAG_AT)
        return tagged(octets, tag, kind if status & _VLAN_KIND_VALID else 0x8100)


def tagged(octets: bytes, tag: int, kind: int) -> bytes:
    """A frame behind its header, with the VLAN tag that it had on the wire."""
    flags, coalesced, head, size, start, offset = struct.unpack_from("=BBHHHH", octets)
    if flags & 1 or coalesced:
        octets = struct.pack("=BBHHHH", flags, coalesced, head + 4, size, start + 4, offset) + octets[VNET_HEADER:]
    at = VNET_HEADER + 12
    return octets[:at] + struct.pack("!HH", kind, tag) + octets[at:]


class FrameSocket:
    """A packet socket of one interface that does not block.

    :param receive: whether it takes frames at all; it takes those that :meth:`only` lets through.
    :raises SystemRefused: no privilege, or no such interface.
    """

    BATCH = 64
    #: A coalesced packet is up to 64 KiB long.
    SIZE = 65536 + 64

    def __init__(self, interface: str, *, receive: bool) -> None:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        except OSError as error:
            raise SystemRefused("open a packet socket", errno=error.errno or 0, advice=_ADVICE) from None
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            if receive:
                self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
                self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
                self.only([])
            self._socket.bind((interface, _ETH_P_ALL if receive else 0))
        except OSError as error:
            self._socket.close()
            raise SystemRefused(
                f"open a packet socket on {interface}", errno=error.errno or 0, advice=_ADVICE
            ) from None
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._incoming = _Batch(self.BATCH, self.SIZE) if receive else None

    def fileno(self) -> int:
        """For the reactor."""
        return self._socket.fileno()

    def only(self, addresses: Collection[Address], tunnel_end: Address | None = None) -> None:
        """Take IP packets to these addresses, frames that other nodes passed on, and what is in tunnels to
        ``tunnel_end``; nothing else."""
        program = filter_for(addresses, tunnel_end)
        buffer = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def receive(self) -> list[bytes]:
        """What has come, up to :attr:`BATCH`; each frame behind its ten octets of header."""
        batch = self._incoming
        if batch is None:
            return []
        count = self._libc.recvmmsg(self._socket.fileno(), batch.messages, self.BATCH, 0x40, None)  # MSG_DONTWAIT
        return [batch.frame(place) for place in range(max(0, count))]

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames, each behind its header; how many the kernel took. The others are lost, as on a wire."""
        if not frames:
            return 0
        count = len(frames)
        vectors, messages = (_Vector * count)(), (_Message * count)()
        for place, frame in enumerate(frames):
            vectors[place].base = ctypes.cast(ctypes.c_char_p(frame), ctypes.c_void_p)
            vectors[place].length = len(frame)
            messages[place].header.vectors = ctypes.addressof(vectors[place])
            messages[place].header.vector_count = 1
        taken = at = 0
        while at < count:
            done = self._libc.sendmmsg(
                self._socket.fileno(), ctypes.byref(messages, at * ctypes.sizeof(_Message)), count - at, 0x40
            )
            if done > 0:
                taken, at = taken + done, at + done
            elif ctypes.get_errno() == errno.EINTR:
                continue
            else:
                at += 1  # this one is too long, or the interface is full or down
        return taken

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()


def filter_for(addresses: Collection[Address], tunnel_end: Address | None = None) -> bytes:
    """A classic BPF program (``struct sock_filter``) that takes IP packets to ``addresses``, marked frames, and packets
    to ``tunnel_end`` with another packet in them (IPIP, GUE).

    It needs no right beyond that of the socket, and spares this process what is not for it.
    """
    take = [(0x06, 0, 0, 0x40000)]
    fourth: list[tuple[int, int, int, int]] = []
    sixth: list[tuple[int, int, int, int]] = []
    if tunnel_end is not None:
        protocol, udp_port = (23, 36) if tunnel_end.version == 4 else (20, 56)
        tests = [(0x30, 0, 0, protocol), (0x15, 4, 0, 4), (0x15, 3, 0, 41), (0x15, 0, 3, 17)]
        tests += [(0x28, 0, 0, udp_port), (0x15, 0, 1, GUE_PORT), *take]
        if tunnel_end.version == 4:
            fourth += [(0x20, 0, 0, 30), (0x15, 0, len(tests), int(tunnel_end)), *tests]
        else:
            words = struct.unpack("!4I", tunnel_end.packed)
            for place, word in enumerate(words):
                sixth += [(0x20, 0, 0, 38 + 4 * place), (0x15, 0, 2 * (3 - place) + len(tests), word)]
            sixth += tests
    fourth.append((0x20, 0, 0, 30))
    for address in addresses:
        if address.version == 4:
            fourth += [(0x15, 0, 1, int(address)), *take]
        else:
            words = struct.unpack("!4I", address.packed)
            for place, word in enumerate(words):
                # Past the other words, two instructions each, and the taking.
                sixth += [(0x20, 0, 0, 38 + 4 * place), (0x15, 0, 2 * (3 - place) + 1, word)]
            sixth += take
    fourth.append((0x06, 0, 0, 0))
    sixth.append((0x06, 0, 0, 0))
    program = [
        (0x28, 0, 0, 12),
        (0x15, 0, 1, 0x88B5),
        *take,
        (0x15, 0, 1, 0x88B6),
        *take,
        (0x15, 0, 1, 0x0800),
        (0x05, 0, 0, 3),  # on to the IPv4 addresses, however many there are
        (0x15, 0, 1, 0x86DD),
        (0x05, 0, 0, 1 + len(fourth)),
        (0x06, 0, 0, 0),
        *fourth,
        *sixth,
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
