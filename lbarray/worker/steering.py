"""Which of a service's listening sockets gets a new connection: one that the client's address chooses.

Worker processes listen on sockets of one ``SO_REUSEPORT`` group. Left alone, the kernel spreads connections by
addresses and ports; a returning TLS client would meet a process that does not know its session. A classic BPF program
on the group (``SO_ATTACH_REUSEPORT_CBPF``, socket(7)) returns the number of a socket instead, in the order in which
they listened.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

from lbarray.errors import SystemRefused

__all__ = ["leave_to_kernel", "run_program", "steer_by_chance", "steer_by_client", "steering_program"]

_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68
#: Offsets from here on count from the network header (linux/filter.h, SKF_NET_OFF).
_NETWORK = 0x100000000 - 0x100000
#: A random number in place of an octet of the packet (linux/filter.h, SKF_AD_OFF + SKF_AD_RANDOM).
_RANDOM = 0x100000000 - 0x1000 + 56
#: Where the source address is: IPv4 (RFC 791 §3.1), IPv6 (RFC 8200 §3).
_SOURCE = {4: (12, 1), 6: (8, 4)}
_LOAD_WORD, _AND, _MULTIPLY, _XOR_X, _SHIFT_RIGHT, _MODULO, _RETURN, _TO_X = (
    0x20,
    0x54,
    0x24,
    0xAC,
    0x74,
    0x94,
    0x16,
    0x07,
)
#: 2^32 divided by the golden ratio, odd (Knuth, TAOCP 6.4): the upper bits of a product are well mixed.
_MULTIPLIER = 2654435769

Instruction = tuple[int, int, int, int]


def steering_program(sockets: int, *, version: int, prefix: int) -> list[Instruction]:
    """Instructions (code, jt, jf, k) that return a socket's number for a packet of a client.

    :param sockets: how many there are.
    :param version: 4 or 6, of the listeners' address.
    :param prefix: bits of the address that count.
    :raises ValueError: no sockets, or a prefix longer than an address.
    """
    at, words = _SOURCE[version]
    if sockets < 1 or not 0 <= prefix <= 32 * words:
        raise ValueError(f"{sockets} sockets, {prefix} bits")
    program: list[Instruction] = []
    for word in range(words):
        bits = min(32, max(0, prefix - 32 * word))
        if bits == 0:
            break
        program.append((_LOAD_WORD, 0, 0, (_NETWORK + at + 4 * word) & 0xFFFFFFFF))
        if bits < 32:
            program.append((_AND, 0, 0, 0xFFFFFFFF << (32 - bits) & 0xFFFFFFFF))
        if word:
            program.append((_XOR_X, 0, 0, 0))
        program.append((_MULTIPLY, 0, 0, _MULTIPLIER))
        program.append((_TO_X, 0, 0, 0))
    program += [(_SHIFT_RIGHT, 0, 0, 15), (_MODULO, 0, 0, sockets), (_RETURN, 0, 0, 0)]
    return program


def run_program(program: list[Instruction], network_header: bytes) -> int:
    """What the kernel's interpreter returns: the oracle of the tests."""
    a = x = 0
    for code, _, _, k in program:
        if code == _LOAD_WORD:
            (a,) = struct.unpack_from("!I", network_header, k - _NETWORK)
        elif code == _AND:
            a &= k
        elif code == _MULTIPLY:
            a = a * k & 0xFFFFFFFF
        elif code == _XOR_X:
            a ^= x
        elif code == _TO_X:
            x = a
        elif code == _SHIFT_RIGHT:
            a >>= k
        elif code == _MODULO:
            a %= k
    return a


def steer_by_client(listener: socket.socket, sockets: int, *, prefix: int) -> None:
    """Steer the whole group that ``listener`` belongs to; takes the place of an earlier program.

    :param sockets: how many sockets the group has.
    :raises SystemRefused: the kernel would not.
    """
    version = 6 if listener.family == socket.AF_INET6 else 4
    _attach(listener, steering_program(sockets, version=version, prefix=prefix))


def steer_by_chance(listener: socket.socket, sockets: int) -> None:
    """Give new connections to the first so many sockets of the group of ``listener``, whatever their addresses; those
    behind them get none. Takes the place of an earlier program.

    :raises SystemRefused: the kernel would not.
    """
    # Only a connection's first packet asks: the others find what it began.
    _attach(listener, [(_LOAD_WORD, 0, 0, _RANDOM), (_MODULO, 0, 0, sockets), (_RETURN, 0, 0, 0)])


def _attach(listener: socket.socket, program: list[Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(code))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, fprog)
    except OSError as error:
        raise SystemRefused(
            "steer connections to worker processes",
            errno=error.errno or 0,
            advice='set hash = "connection" in the service, or worker.processes = 0',
        ) from None


def leave_to_kernel(listener: socket.socket) -> None:
    """Take the program off the group again, if there is one: the whole connection chooses."""
    with contextlib.suppress(OSError):  # there was none, or this kernel never had any
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)
