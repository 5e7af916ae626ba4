"""Idle connections to one back end, kept for the next request."""

from __future__ import annotations

from typing import Any

__all__ = ["IdleConnections"]


class IdleConnections:
    """The last one in is the first one out: it is the least likely to have been closed by the back end.

    :param max_idle: more than these are closed, the oldest first.
    :param idle_timeout_s: how long one may wait.
    """

    def __init__(self, *, max_idle: int, idle_timeout_s: float) -> None:
        self._max_idle = max_idle
        self._idle_timeout_s = idle_timeout_s
        self._stored: dict[Any, float] = {}  # in the order of storing

    def reconfigure(self, new: IdleConnections) -> None:
        """Take the limits of ``new``; what is stored stays until they ask for it."""
        self._max_idle = new._max_idle
        self._idle_timeout_s = new._idle_timeout_s

    def __len__(self) -> int:
        return len(self._stored)

    def take(self) -> Any | None:
        """One, no longer stored; ``None`` when there is none."""
        if not self._stored:
            return None
        return self._stored.popitem()[0]

    def store(self, connection: Any, now: float) -> None:
        """Keep one."""
        if self._max_idle == 0:
            connection.close()
            return
        self._stored[connection] = now
        if len(self._stored) > self._max_idle:
            self.close_oldest()

    def close_oldest(self) -> bool:
        """Close the one that has waited longest; false when there is none."""
        if not self._stored:
            return False
        oldest = next(iter(self._stored))
        del self._stored[oldest]
        oldest.close()
        return True

    def forget(self, connection: Any) -> None:
        """It died by itself; an unknown one is no matter."""
        self._stored.pop(connection, None)

    def expire(self, now: float) -> int:
        """Close those that have waited for too long; how many."""
        late = []
        for connection, since in self._stored.items():
            if now - since < self._idle_timeout_s:
                break
            late.append(connection)
        for connection in late:
            del self._stored[connection]
            connection.close()
        return len(late)

    def close_all(self) -> None:
        """The back end is down, or the node stops."""
        stored, self._stored = self._stored, {}
        for connection in stored:
            connection.close()
