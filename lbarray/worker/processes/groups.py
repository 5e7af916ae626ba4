"""The listening sockets of a node with worker processes: for each service one for each process, in one group.

The node process holds them all the time, so that nobody's connection is refused when a process ends or another takes
its place.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence

import attrs
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.values import ServiceId
from lbarray.worker.listeners import listening_socket
from lbarray.worker.steering import leave_to_kernel, steer_by_chance, steer_by_client

__all__ = ["ListeningGroups", "Offered", "check_all"]


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


def check_all(offered: Sequence[Offered], log: Logger) -> dict[str, bool]:
    """By service with certificates, whether those that are there now will do; why not, the log says."""
    done = {}
    for each in offered:
        if each.check is not None:
            try:
                each.check()
                done[each.name] = True
            except SystemRefused as error:
                done[each.name] = False
                log.error("{service}: {error}; the certificates before stay", service=each.name, error=error)
    return done


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
        """Have sockets for these services, and for so many places at least; those that are there are kept, also of
        services that are gone, until :meth:`close_gone`: the next call may want them again. Sockets of new places get
        connections once they are steered to.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        for each in offered:
            each.checked()
        places = max(places, self._places)
        opened: dict[ServiceId, list[socket.socket]] = {}
        try:
            for each in offered:
                group = list(self._groups.get(each.service_id, ()))
                opened[each.service_id] = [] if group else [_opened(each)]
                group += opened[each.service_id]
                if places > len(group):
                    self._steer(each, group, places)  # before there are more, so that these do not get any yet
                while places > len(group):
                    group.append(_opened(each))
                    opened[each.service_id].append(group[-1])
                self._steer(each, group, places)
        except Exception:
            _close(opened)
            raise
        for place, more in opened.items():
            self._groups.setdefault(place, []).extend(more)
        self._offered, self._places = tuple(offered), places

    def close_gone(self) -> None:
        """Nobody listens any more for services that are not wanted."""
        wanted = {each.service_id for each in self._offered}
        _close({place: self._groups.pop(place) for place in list(self._groups) if place not in wanted})

    def steer(self, places: int) -> None:
        """New connections are spread over the sockets of so many places, the first ones.

        :raises SystemRefused: the kernel would not; they go where they went before, as far as it lets them.
        """
        before, self._steered = self._steered, places
        try:
            self._steer_all()
        except SystemRefused:
            self._steered = before
            with contextlib.suppress(SystemRefused):
                self._steer_all()
            raise

    def _steer_all(self) -> None:
        for each in self._offered:
            self._steer(each, self._groups[each.service_id], self._places)

    def trim(self, places: int) -> None:
        """Close the sockets behind those of so many places. Whoever waits there is lost, so nobody should.

        :raises SystemRefused: they are closed, but the kernel would not be told of it.
        """
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
