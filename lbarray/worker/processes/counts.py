"""How many connections each process of a node has: one number each, in memory that all of them see.

A limit of the node holds for all its processes together, and is asked for at every new connection: there is no time to
ask anybody. Each process writes its own number only, so nothing needs a lock.
"""

from __future__ import annotations

import mmap
import os

__all__ = ["ConnectionCounts"]

#: Octets of a number.
_SIZE = 8


class ConnectionCounts:
    """The numbers of all processes, and which of them is ours.

    :param fd: of the memory; it is not needed afterwards. :param place: ours; -1: we only read.
    """

    def __init__(self, fd: int, place: int = -1) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._numbers = memoryview(self._memory).cast("q")
        self._place = place

    @staticmethod
    def memory(places: int) -> int:
        """The descriptor of new memory for so many processes, all of them at 0."""
        fd = os.memfd_create("lbarray-connections")
        os.ftruncate(fd, places * _SIZE)
        return fd

    def set(self, connections: int) -> None:
        """So many are ours now."""
        self._numbers[self._place] = connections

    def clear(self, place: int) -> None:
        """The process of that place has ended."""
        self._numbers[place] = 0

    @property
    def total(self) -> int:
        """Of all processes."""
        return sum(self._numbers)

    def close(self) -> None:
        """The memory is not looked at any more."""
        self._numbers.release()
        self._memory.close()
