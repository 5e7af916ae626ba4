"""Does this machine's kernel hold a TCP connection? Asked by ``sock_diag(7)``, some ten microseconds a question."""

from __future__ import annotations

import errno
import socket
import struct

from lbarray.errors import SystemRefused

__all__ = ["LISTENING", "TIME_WAIT", "ConnectionLookup"]

#: As ``include/net/tcp_states.h`` has them.
TIME_WAIT, LISTENING = 6, 10
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, _NLMSG_ERROR = 4, 20, 1, 2
_HEAD = struct.Struct("=IHHII")
#: ``struct inet_diag_req_v2`` with the socket's identity: our port and the other's, our address and the other's.
_REQUEST = struct.Struct("=BBxxI2s2s16s16sIQ")
_NO_COOKIE = 0xFFFFFFFFFFFFFFFF
_MAPPED = b"\0" * 10 + b"\xff\xff"
_BUFFER = 4096


def _refused(number: int) -> SystemRefused:
    return SystemRefused("ask for a TCP connection", errno=number, advice="modprobe tcp_diag")


class ConnectionLookup:
    """Asks for one connection at a time, and does not wait: the kernel answers within the call.

    :raises SystemRefused: this kernel has no ``inet_diag``.
    """

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG)
        except OSError as error:
            raise SystemRefused("ask for TCP connections", errno=error.errno or 0, advice="modprobe tcp_diag") from None
        try:
            self._try()
        except SystemRefused:
            self._socket.close()
            raise

    def _try(self) -> None:
        """A kernel without ``inet_diag`` says of every connection that there is none: ask for one that there is."""
        here = _MAPPED + b"\x7f\0\0\1"
        with socket.create_server(("127.0.0.1", 0)) as server:
            if self.state(here, b"\0\1", here, server.getsockname()[1].to_bytes(2, "big")) != LISTENING:
                raise SystemRefused("ask for TCP connections", detail="no inet_diag", advice="modprobe tcp_diag")

    def state(self, client: bytes, client_port: bytes, address: bytes, port: bytes) -> int | None:
        """The kernel's number of the state of the socket that would be given a segment; ``None`` where none would.

        It is :data:`LISTENING` for one that begins a connection, or belongs to none.

        :param client: sixteen octets, IPv4 mapped; :param client_port: two, in network order; ``address`` and ``port``
            are ours.
        :raises SystemRefused: the kernel does not answer.
        """
        family, ours, theirs = socket.AF_INET6, address, client
        if address[:12] == _MAPPED:
            family, ours, theirs = socket.AF_INET, address[12:] + bytes(12), client[12:] + bytes(12)
        request = _REQUEST.pack(
            *(family, socket.IPPROTO_TCP, 0xFFFFFFFF, port, client_port, ours, theirs, 0, _NO_COOKIE)
        )
        head = _HEAD.pack(_HEAD.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
        try:
            self._socket.send(head + request)
            answer = self._socket.recv(_BUFFER)
        except OSError as error:
            raise _refused(error.errno or 0) from None
        _, kind, _, _, _ = _HEAD.unpack_from(answer)
        if kind == _SOCK_DIAG_BY_FAMILY:
            return answer[_HEAD.size + 1]
        (code,) = struct.unpack_from("=i", answer, _HEAD.size) if kind == _NLMSG_ERROR else (0,)
        if code != -errno.ENOENT:
            raise _refused(-code)
        return None

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()
