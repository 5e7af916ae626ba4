"""How many connections each process of a node has: one number each, in memory that all of them see.

A limit of the node holds for all its processes together, and is asked for at every new connection: there is no time to
ask anybody. Each process writes its own number only, so nothing needs a lock. How many numbers there are to look at
stands before them: the node process writes that, as processes become more.
"""

from __future__ import annotations

import heapq
import mmap
import os

__all__ = ["ConnectionCounts"]

#: Octets of a number.
_SIZE = 8


class ConnectionCounts:
    """The numbers of all processes, and which of them is ours.

    :param fd: of the memory; it is not needed afterwards.
    :param place: ours; -1: we are the node process, which gives the places away.
    """

    def __init__(self, fd: int, place: int = -1) -> None:
        self._memory = mmap.mmap(fd, 0)
        self._numbers = memoryview(self._memory).cast("q")
        self._own = place + 1
        self._free = list(range(len(self._numbers) - 1))

    @staticmethod
    def memory(places: int) -> int:
        """The descriptor of new memory for up to so many processes, all of them at 0."""
        fd = os.memfd_create("lbarray-connections")
        os.ftruncate(fd, (places + 1) * _SIZE)
        return fd

    def take(self) -> int:
        """A place for another process, the lowest that is free; -1 for none."""
        if not self._free:
            return -1
        place = heapq.heappop(self._free)
        self._numbers[0] = max(self._numbers[0], place + 1)
        return place

    def give_back(self, place: int) -> None:
        """The process of that place has ended; one without a place too."""
        if place >= 0:
            self._numbers[place + 1] = 0
            heapq.heappush(self._free, place)

    def set(self, connections: int) -> None:
        """So many are ours now."""
        self._numbers[self._own] = connections

    @property
    def total(self) -> int:
        """Of all processes."""
        return sum(self._numbers[1 : self._numbers[0] + 1])

    def close(self) -> None:
        """The memory is not looked at any more."""
        self._numbers.release()
        self._memory.close()
