"""What waits in the kernel for somebody to accept it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection

from pyroute2 import DiagSocket
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused

__all__ = ["accept_queue"]

_TCP_LISTEN = 10


def accept_queue(ports: Collection[int]) -> int:
    """Connections that are complete and that no process has taken, over all sockets that listen on these TCP ports.

    Asked by ``sock_diag(7)``, so it does not matter which processes hold the sockets.

    :raises SystemRefused: this kernel has no ``inet_diag``.
    """
    waiting = 0
    try:
        with DiagSocket() as diagnosis:
            diagnosis.bind()
            for family in (socket.AF_INET, socket.AF_INET6):
                for message in diagnosis.get_sock_stats(family=family, states=1 << _TCP_LISTEN):
                    if message["idiag_sport"] in ports:
                        waiting += message["idiag_rqueue"]
    except NetlinkError as error:
        raise SystemRefused("ask for the accept queues", errno=int(error.code), advice="modprobe tcp_diag") from None
    except OSError as error:
        raise SystemRefused(
            "ask for the accept queues", errno=error.errno or errno.ENOSYS, advice="modprobe tcp_diag"
        ) from None
    return waiting
