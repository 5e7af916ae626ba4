"""Filters that want the whole page as a tree: bounded in size, and off the reactor's thread."""

from __future__ import annotations

from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from lbarray.telemetry.counters import Counters

__all__ = ["THREADS", "TreeStage", "tree_threads"]

#: Threads that build trees; others wait. More would only take the interpreter from the reactor.
THREADS = 2


def tree_threads() -> ThreadPool:
    """Where trees are built. Not started yet. A filter that never ends does not keep the process from ending."""
    threads: Any = ThreadPool(0, THREADS, "lbarray-trees")
    threads.threadFactory = partial(Thread, daemon=True)
    pool: ThreadPool = threads
    return pool


class TreeStage:
    """Holds a page until it is complete, changes it as a tree, and gives out what the tree says then.

    A page beyond ``max_size`` octets leaves as it came; so does one on which the filter raised.

    :param tree: an :class:`lbarray.interfaces.ITreeFilter`.
    :param charset: of the page by its fields, or ``None``: its own ``meta`` says.
    """

    _log = Logger()

    def __init__(
        self,
        tree: Any,
        *,
        name: str,
        page: str,
        charset: str | None,
        max_size: int,
        counters: Counters,
        reactor: Any,
        threads: ThreadPool,
    ) -> None:
        self._tree = tree
        self._name = name
        self._page = page
        self._charset = charset
        self._max_size = max_size
        self._counters = counters
        self._reactor = reactor
        self._threads = threads
        self._held: list[bytes] | None = []
        self._size = 0
        self._result: bytes | None = None
        self.waiting: Deferred[Any] | None = None
        self.failed = False

    def feed(self, data: bytes) -> bytes:
        """Nothing leaves before the end, or before it is too large."""
        if self._held is None:
            return data
        self._held.append(data)
        self._size += len(data)
        if self._size <= self._max_size:
            return b""
        self._counters.add("rewrite_bail_out", f"{self._name}_too_large")
        whole, self._held = b"".join(self._held), None
        return whole

    def finish(self) -> bytes:
        """First begins the work; called again after ``waiting``, gives its result."""
        if self._result is not None:
            return self._result
        if self._held is None:
            return b""
        whole, self._held = b"".join(self._held), None
        self.waiting = Deferred()
        done = deferToThreadPool(self._reactor, self._threads, self._changed, whole)
        done.addErrback(self._fail, whole)
        done.addCallback(self._finished)
        return b""

    def _changed(self, whole: bytes) -> bytes:
        """In a thread."""
        from bs4 import BeautifulSoup  # a large library, and few processes have a filter that wants it

        soup = BeautifulSoup(whole, "html.parser", from_encoding=self._charset)
        self._tree.change(soup)
        return soup.encode(soup.original_encoding or "utf-8", formatter="html5")

    def _fail(self, failure: Failure, whole: bytes) -> bytes:
        self.failed = True
        self._counters.add("rewrite_bail_out", self._name)
        self._log.failure(
            "the filter {name} failed on {page}; it goes on as it came", failure, name=self._name, page=self._page
        )
        return whole

    def _finished(self, result: bytes) -> None:
        self._result = result
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)
