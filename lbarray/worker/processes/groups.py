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
from lbarray.worker.steering import leave_to_kernel, steer_by_chance, steer_by_client

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
    """The sockets of every service: one for each place of a process, in the order of the places.

    Only the first places get new connections (:meth:`steer`). Sockets are opened and closed at the end alone, for the
    kernel numbers those of a group in the order in which they began to listen.
    """

    def __init__(self) -> None:
        self._offered: tuple[Offered, ...] = ()
        self._groups: dict[ServiceId, list[socket.socket]] = {}
        self._places = 0
        self._steered = 0

    def follow(self, offered: Sequence[Offered], places: int) -> None:
        """Have sockets for these services and no others, and for so many places at least; those that are there are
        kept. Sockets of new places get connections once they are steered to.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        for each in offered:
            each.checked()
        places = max(places, self._places)
        opened: dict[ServiceId, list[socket.socket]] = {}
        try:
            for each in offered:
                here = self._groups.get(each.service_id, [])
                if here and places > len(here):
                    self._steer(each, here, places)  # before there are more, so that these do not get any yet
                for _ in range(places - len(here)):
                    opened.setdefault(each.service_id, []).append(_opened(each))
                self._steer(each, [*here, *opened.get(each.service_id, ())], places)
        except Exception:
            _close(opened)
            raise
        for place, more in opened.items():
            self._groups.setdefault(place, []).extend(more)
        wanted = {each.service_id for each in offered}
        _close({place: self._groups.pop(place) for place in list(self._groups) if place not in wanted})
        self._offered, self._places = tuple(offered), places

    def steer(self, places: int) -> None:
        """New connections are spread over the sockets of so many places, the first ones."""
        self._steered = places
        for each in self._offered:
            self._steer(each, self._groups[each.service_id], self._places)

    def trim(self, places: int) -> None:
        """Close the sockets behind those of so many places. Whoever waits there is lost, so nobody should."""
        if places >= self._places:
            return
        for group in self._groups.values():
            while len(group) > places:
                group.pop().close()
        self._places = places
        self.steer(min(self._steered, places))

    def _steer(self, offered: Offered, group: Sequence[socket.socket], places: int) -> None:
        """``places``: how many sockets the group has, or will have in a moment."""
        steered = self._steered or places
        if places < 2:
            leave_to_kernel(group[0])
        elif offered.prefix is not None:
            steer_by_client(group[0], steered, prefix=offered.prefix)
        elif steered < places:
            steer_by_chance(group[0], steered)
        else:
            leave_to_kernel(group[0])

    def of(self, offered: Sequence[Offered], place: int) -> list[socket.socket]:
        """Those of one process, in the order of the services."""
        return [self._groups[each.service_id][place] for each in offered]

    def close(self) -> None:
        """Nobody listens any more."""
        _close(self._groups)
        self._groups = {}
        self._offered = ()
        self._places = self._steered = 0


def _opened(offered: Offered) -> socket.socket:
    place = offered.service_id
    return listening_socket(str(place.address), place.port, reuse_port=True, mss=offered.mss)


def _close(groups: dict[ServiceId, list[socket.socket]]) -> None:
    for group in groups.values():
        for each in reversed(group):
            each.close()
