"""What an eBPF program reports (BPF_MAP_TYPE_RINGBUF, Linux 5.8), for the reactor."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from lbarray.kernel.libbpf import Map, library

__all__ = ["RingBuffer"]

_RECEIVED = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@implementer(IReadDescriptor)
class RingBuffer:
    """Hands each report to ``received``, which must not raise.

    :raises SystemRefused: the kernel would not.
    """

    def __init__(self, reports: Map, received: Callable[[bytes], None]) -> None:
        c = library().c
        c.ring_buffer__new.restype = ctypes.c_void_p
        c.ring_buffer__new.argtypes = [ctypes.c_int, _RECEIVED, ctypes.c_void_p, ctypes.c_void_p]
        for function in ("ring_buffer__consume", "ring_buffer__epoll_fd", "ring_buffer__free"):
            getattr(c, function).argtypes = [ctypes.c_void_p]
        self._received = received
        self._callback = _RECEIVED(self._take)
        self._buffer: int | None = c.ring_buffer__new(reports.fd, self._callback, None, None)
        if not self._buffer:
            raise library().refused(f"read the reports of the map {reports.name}", ctypes.get_errno())

    def _take(self, context: int, data: int, size: int) -> int:
        self._received(ctypes.string_at(data, size))
        return 0

    def fileno(self) -> int:
        return -1 if self._buffer is None else int(library().c.ring_buffer__epoll_fd(self._buffer))

    def logPrefix(self) -> str:
        return "packet program"

    def connectionLost(self, reason: object) -> None:
        """Nothing to do that :meth:`close` does not."""

    def doRead(self) -> None:
        """All that is there: no more than the buffer holds, and what comes meanwhile."""
        if self._buffer is not None:
            library().c.ring_buffer__consume(self._buffer)

    def close(self) -> None:
        """Idempotent."""
        if self._buffer is not None:
            library().c.ring_buffer__free(self._buffer)
            self._buffer = None
