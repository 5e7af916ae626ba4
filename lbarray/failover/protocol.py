"""The VRRP socket as the reactor sees it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.failover.packet import Advertisement, BadAdvertisement, encode, from_ipv4_datagram
from lbarray.kernel.rawsocket import GROUP_IPV4
from lbarray.telemetry.counters import Counters

__all__ = ["VrrpWire"]

_AT_ONCE = 32


@implementer(IReadDescriptor)
class VrrpWire:
    """Reads and writes advertisements on one raw socket.

    :param peers: send to these addresses; none means the multicast group.
    :param heard: called with each good advertisement and its sender.
    """

    def __init__(
        self,
        *,
        reactor: IReactorFDSet,
        raw: socket.socket,
        source: IPv4Address,
        peers: Sequence[IPv4Address],
        counters: Counters,
        heard: Callable[[Advertisement, IPv4Address], None],
    ) -> None:
        self._reactor = reactor
        self._raw = raw
        self._source = source
        self._destinations = tuple(peers) or (IPv4Address(GROUP_IPV4),)
        self._accepts_from = frozenset(peers)
        self._counters = counters
        self._heard = heard

    def open(self) -> None:
        """Begin to read."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Stop reading, close the socket. Idempotent."""
        self._reactor.removeReader(self)
        self._raw.close()

    def send(self, advertisement: Advertisement) -> bool:
        """Send to all destinations; false when the kernel took none, which is counted."""
        sent = False
        for destination in self._destinations:
            try:
                self._raw.sendto(encode(advertisement, self._source, destination), (str(destination), 0))
                sent = True
            except OSError:
                self._counters.add("vrrp_send_failed", str(destination))
        self._counters.add("vrrp_sent")
        return sent

    def fileno(self) -> int:
        return self._raw.fileno()

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            if self._raw.fileno() < 0:  # closed by what it just heard
                return
            try:
                datagram = self._raw.recv(2048)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._counters.add("vrrp_receive_failed")
                return
            try:
                advertisement, source = from_ipv4_datagram(datagram)
            except BadAdvertisement as error:
                self._counters.add("vrrp_refused", error.why)
                continue
            if source == self._source:
                continue
            if self._accepts_from and source not in self._accepts_from:
                self._counters.add("vrrp_refused", "stranger")
                continue
            self._heard(advertisement, source)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going away."""

    def logPrefix(self) -> str:
        return "vrrp"
