"""What waits in the kernel for somebody to accept it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from ipaddress import ip_address

import attrs
from pyroute2 import DiagSocket
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["HeldConnection", "accept_queue", "held_connections"]

#: TCP states as the kernel numbers them (``include/net/tcp_states.h``).
_STATES = {1: "established", 3: "syn-recv", 4: "fin-wait-1", 5: "fin-wait-2", 8: "close-wait", 9: "last-ack"}
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


@attrs.frozen
class HeldConnection:
    """A TCP connection that this machine's kernel holds. ``state``: as ``ss`` writes it."""

    client: Address
    port: int
    to: Address
    to_port: int
    state: str


def held_connections(ports: Collection[int], limit: int) -> list[HeldConnection]:
    """Connections to these ports. Blocks, for some microseconds each: not for the reactor's thread.

    :raises SystemRefused: this kernel has no ``inet_diag``.
    """
    found: list[HeldConnection] = []
    states = sum(1 << state for state in _STATES)
    try:
        with DiagSocket() as diagnosis:
            diagnosis.bind()
            for family in (socket.AF_INET, socket.AF_INET6):
                for message in diagnosis.get_sock_stats(family=family, states=states):
                    if message["idiag_sport"] in ports and len(found) < limit:
                        state = _STATES.get(message["idiag_state"], str(message["idiag_state"]))
                        client, to = ip_address(message["idiag_dst"]), ip_address(message["idiag_src"])
                        found.append(HeldConnection(client, message["idiag_dport"], to, message["idiag_sport"], state))
    except (NetlinkError, OSError) as error:
        raise SystemRefused("list TCP connections", detail=str(error), advice="modprobe tcp_diag") from None
    return found
