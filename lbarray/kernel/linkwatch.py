"""Hears from the kernel when an interface loses or regains its carrier (rtnetlink(7), RTMGRP_LINK)."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.kernel.links import Link, link

__all__ = ["LinkWatch"]

_RTMGRP_LINK = 1


@implementer(IReadDescriptor)
class LinkWatch:
    """Tells of every change that the kernel reports of any interface; what changed is looked up.

    :param changed: called with the interface as it is now, ``None`` when it is gone; perhaps with what it knew already.
    """

    def __init__(self, *, reactor: IReactorFDSet, interface: str, changed: Callable[[Link | None], None]) -> None:
        self._reactor = reactor
        self._interface = interface
        self._changed = changed
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """:raises SystemRefused: no netlink socket is to be had."""
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
            )
            self._socket.bind((0, _RTMGRP_LINK))
        except OSError as error:
            raise SystemRefused("listen for changes of interfaces", errno=error.errno or 0) from None
        self._reactor.addReader(self)
        self.look()

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def look(self) -> None:
        """Tell how the interface is now."""
        try:
            self._changed(link(self._interface))
        except SystemRefused:
            self._changed(None)

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def doRead(self) -> None:
        assert self._socket is not None
        try:
            while True:
                self._socket.recv(65536)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more changed than the buffer holds: look all the same
                self.close()
                return
        self.look()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going away."""

    def logPrefix(self) -> str:
        return "link watch"
