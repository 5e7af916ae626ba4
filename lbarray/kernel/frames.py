"""Whole frames through packet sockets, many with one call, as the kernel holds them (packet(7)).

A frame that this machine's kernel has coalesced, or whose checksum the sender left to its hardware, comes with a header
that says so (PACKET_VNET_HDR), and goes out again with the same header: the kernel then finishes the work.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Collection, Sequence

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["FrameSocket", "filter_for"]

VNET_HEADER = 10
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 263, 15, 20, 23
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

    def only(self, addresses: Collection[Address]) -> None:
        """Take IP packets to these addresses and frames that other nodes passed on, and nothing else."""
        program = filter_for(addresses)
        buffer = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("HL", len(program) // 8, ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)

    def receive(self) -> list[bytes]:
        """What has come, up to :attr:`BATCH`; each frame behind its ten octets of header."""
        batch = self._incoming
        if batch is None:
            return []
        count = self._libc.recvmmsg(self._socket.fileno(), batch.messages, self.BATCH, 0x40, None)  # MSG_DONTWAIT
        return [bytes(batch.places[place][: batch.messages[place].length]) for place in range(max(0, count))]

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


def filter_for(addresses: Collection[Address]) -> bytes:
    """A classic BPF program (``struct sock_filter``) that takes IP packets to ``addresses`` and marked frames.

    It needs no right beyond that of the socket, and spares this process what is not for it.
    """
    take = [(0x06, 0, 0, 0x40000)]
    fourth = [(0x20, 0, 0, 30)]
    sixth: list[tuple[int, int, int, int]] = []
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
