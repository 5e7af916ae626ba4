"""The sockets on which a service listens."""

from __future__ import annotations

import errno
import socket

from lbarray.errors import SystemRefused

__all__ = ["listening_socket"]

BACKLOG = 1024


def listening_socket(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A non-blocking TCP socket that listens on ``host`` and ``port``.

    ``TCP_NODELAY`` and keepalive are set here once: accepted connections inherit them.

    :raises SystemRefused: the port is taken, the address is not ours, or it needs privilege.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        advice = {
            errno.EADDRINUSE: f"see who has it: ss -ltnp 'sport = :{port}'",
            errno.EADDRNOTAVAIL: f"is {host} an address of this machine? ip addr",
            errno.EACCES: "ports below 1024 need root (CAP_NET_BIND_SERVICE)",
        }.get(error.errno or 0, "")
        raise SystemRefused(f"listen on TCP {host}:{port}", errno=error.errno or 0, advice=advice) from None
    return listener
