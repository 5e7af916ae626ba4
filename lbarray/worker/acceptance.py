"""Do this node's listeners really accept? Asked of the kernel, not of our own memory."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["AcceptanceCheck", "listens"]


def listens(host: str, port: int) -> bool:
    """Does this machine's kernel complete a connection to its own address? Does not block.

    A connection to an address of the same machine is completed or refused within ``connect``
    itself, by the listening socket's backlog: nobody waits for the process to accept.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        # Without lingering: the probe leaves with a reset, and no TIME_WAIT behind it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return probe.connect_ex((host, port)) in (0, errno.EINPROGRESS) and _completed(probe)


def _completed(probe: socket.socket) -> bool:
    try:
        probe.getpeername()
    except OSError:
        return False
    return True


class AcceptanceCheck(Service):
    """Tries every listener each ``interval_s`` and knows whether all of them accept.

    :ivar accepting: what the last round found; false before the first.
    """

    def __init__(
        self,
        *,
        clock: IReactorTime,
        targets: Sequence[tuple[str, int]],
        interval_s: float,
        changed: Callable[[bool], None],
        connects: Callable[[str, int], bool] = listens,
    ) -> None:
        self.accepting = False
        self.targets = tuple(targets)
        self._interval_s = interval_s
        self._changed = changed
        self._connects = connects
        self._loop = LoopingCall(self._check)
        self._loop.clock = clock

    def startService(self) -> None:
        super().startService()
        self._loop.start(self._interval_s)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def _check(self) -> None:
        accepting = all(self._connects(host, port) for host, port in self.targets)
        if accepting != self.accepting:
            self.accepting = accepting
            self._changed(accepting)
