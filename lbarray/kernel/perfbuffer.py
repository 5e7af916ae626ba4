"""What an eBPF program puts out with a packet behind it (BPF_MAP_TYPE_PERF_EVENT_ARRAY), for a program that waits."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from lbarray.kernel.libbpf import Map, library

__all__ = ["PerfBuffer"]

_SHOWN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32)
_LOST = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64)
#: Of 4,096 octets, for each processor.
_PAGES = 256


class PerfBuffer:
    """Hands each record to ``received``, and how many there was no room for to ``lost``; they must not raise.

    Records end with up to seven octets of nothing.

    :raises SystemRefused: the kernel would not.
    """

    def __init__(self, events: Map, received: Callable[[bytes], None], lost: Callable[[int], None]) -> None:
        c = library().c
        c.perf_buffer__new.restype = ctypes.c_void_p
        c.perf_buffer__new.argtypes = [
            *(ctypes.c_int, ctypes.c_size_t, _SHOWN),
            *(_LOST, ctypes.c_void_p, ctypes.c_void_p),
        ]
        for function in ("perf_buffer__consume", "perf_buffer__epoll_fd", "perf_buffer__free"):
            getattr(c, function).argtypes = [ctypes.c_void_p]
        self._received = _SHOWN(lambda context, cpu, data, size: received(ctypes.string_at(data, size)))
        self._lost = _LOST(lambda context, cpu, count: lost(count))
        self._buffer: int | None = c.perf_buffer__new(events.fd, _PAGES, self._received, self._lost, None, None)
        if not self._buffer:
            raise library().refused(f"read what the map {events.name} shows", ctypes.get_errno())

    def fileno(self) -> int:
        return -1 if self._buffer is None else int(library().c.perf_buffer__epoll_fd(self._buffer))

    def consume(self) -> None:
        """Hand over all that is there."""
        if self._buffer is not None:
            library().c.perf_buffer__consume(self._buffer)

    def close(self) -> None:
        """Idempotent."""
        if self._buffer is not None:
            library().c.perf_buffer__free(self._buffer)
            self._buffer = None
