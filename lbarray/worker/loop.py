"""One turn of the reactor without the generic layers, for the connections that make up nearly all events.

Twisted's loop enters a logging context for each event and asks each descriptor three times who it is: about 2.5 µs,
twice per proxied request. A :class:`lbarray.worker.stream.Stream` ends by itself and needs none of it. Every
other descriptor is served exactly as before.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger
from twisted.python import log
from twisted.python.failure import Failure

from lbarray.worker.stream import Stream

__all__ = ["lean_iteration", "make_lean"]

_log = Logger()


def make_lean(reactor: Any) -> bool:
    """Give an epoll reactor the lean turn; false for any other reactor, which works as it does."""
    if not isinstance(reactor, EPollReactor):
        return False
    vars(reactor)["doIteration"] = lean_iteration(reactor)
    return True


def lean_iteration(reactor: Any) -> Callable[[float | None], None]:
    """What takes the place of ``EPollReactor.doPoll``."""
    poll = reactor._poller.poll
    selectables = reactor._selectables
    generic = reactor._doReadOrWrite
    call_with_logger = log.callWithLogger
    readable, writable = EPOLLIN | EPOLLHUP | EPOLLERR, EPOLLOUT | EPOLLHUP | EPOLLERR
    stream = Stream

    def iterate(timeout: float | None) -> None:
        try:
            events = poll(-1 if timeout is None else timeout, len(selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        get = selectables.get
        for fd, event in events:
            selectable = get(fd)
            if selectable is None:
                continue
            if isinstance(selectable, stream):
                try:
                    if event & readable and selectable._reading:
                        selectable.doRead()
                    if event & writable and selectable._writing:
                        selectable.doWrite()
                except Exception:
                    _broke(selectable)
            else:
                call_with_logger(selectable, generic, selectable, fd, event)

    return iterate


def _broke(stream: Stream) -> None:
    """Our own mistake ends one connection, not the worker."""
    failure = Failure()
    _log.failure("a connection broke", failure)
    stream.connectionLost(failure)
