"""The listening sockets of a node with worker processes: for each service one for each process, in one group.

The node process holds them all the time, so that nobody's connection is refused when a process ends or another takes
its place.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import attrs

from lbarray.values import ServiceId
from lbarray.worker.listeners import listening_socket
from lbarray.worker.steering import leave_to_kernel, steer_by_client

__all__ = ["ListeningGroups", "Offered"]


@attrs.frozen
class Offered:
    """A service as the node process needs to know it.

    :ivar prefix: bits of the client's address that choose the process; ``None``: the whole connection chooses.
    :ivar mss: octets that a client may send in one TCP segment; 0: as the interface allows.
    :ivar check: reads and checks its certificates (``SystemRefused``), before processes are told to; ``None``: none.
    """

    name: str
    service_id: ServiceId
    prefix: int | None
    mss: int = 0
    check: Callable[[], object] | None = None

    def checked(self) -> None:
        """:raises SystemRefused: a certificate will not do."""
        if self.check is not None:
            self.check()


class ListeningGroups:
    """The sockets of every service. ``count``: processes of a node."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._groups: dict[ServiceId, list[socket.socket]] = {}

    def follow(self, offered: Sequence[Offered]) -> None:
        """Have sockets for these services and no others; those of services that stay are kept.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        for each in offered:
            each.checked()
        opened: dict[ServiceId, list[socket.socket]] = {}
        try:
            for each in offered:
                if each.service_id not in self._groups:
                    self._open(each, opened.setdefault(each.service_id, []))
        except Exception:
            _close(opened)
            raise
        self._groups.update(opened)
        wanted = {each.service_id for each in offered}
        _close({place: self._groups.pop(place) for place in list(self._groups) if place not in wanted})
        for each in offered:
            self._steer(each, self._groups[each.service_id])

    def _open(self, offered: Offered, group: list[socket.socket]) -> None:
        place = offered.service_id
        for _ in range(self._count):
            group.append(listening_socket(str(place.address), place.port, reuse_port=True, mss=offered.mss))
        self._steer(offered, group)

    @staticmethod
    def _steer(offered: Offered, group: Sequence[socket.socket]) -> None:
        if len(group) < 2:
            return
        if offered.prefix is not None:
            steer_by_client(group[0], len(group), prefix=offered.prefix)
        else:
            leave_to_kernel(group[0])

    def of(self, offered: Sequence[Offered], place: int) -> list[socket.socket]:
        """Those of one process, in the order of the services."""
        return [self._groups[each.service_id][place] for each in offered]

    def close(self) -> None:
        """Nobody listens any more."""
        _close(self._groups)
        self._groups = {}


def _close(groups: dict[ServiceId, list[socket.socket]]) -> None:
    for group in groups.values():
        for each in group:
            each.close()
