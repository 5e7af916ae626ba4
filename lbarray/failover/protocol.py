"""The VRRP sockets as the reactor sees them: one for each address family, shared by all virtual routers of a node."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address

from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.failover.announce import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Claim, claim_in, multicast_mac
from lbarray.failover.authentication import Authenticator
from lbarray.failover.packet import (
    Advertisement,
    BadAdvertisement,
    check_ttl,
    decode,
    encode,
    from_ipv4_datagram,
    ip_datagram,
)
from lbarray.kernel.rawsocket import GROUPS
from lbarray.telemetry.counters import Counters
from lbarray.values import Address

__all__ = ["ClaimReader", "VrrpWire"]

_AT_ONCE = 64
_ANCILLARY = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(20)


@implementer(IReadDescriptor)
class _Reader:
    """A socket of ours in the reactor, until it is closed."""

    def __init__(self, reactor: IReactorFDSet, raw: socket.socket, counters: Counters) -> None:
        self._reactor = reactor
        self._raw = raw
        self._counters = counters

    def open(self) -> None:
        """Begin to read."""
        self._reactor.addReader(self)

    def close(self) -> None:
        """Stop reading, close the socket. Idempotent."""
        self._reactor.removeReader(self)
        self._raw.close()

    def fileno(self) -> int:
        return self._raw.fileno()

    def doRead(self) -> None:
        for _ in range(_AT_ONCE):
            if self._raw.fileno() < 0:  # closed by what it just heard
                return
            try:
                self._read_one()
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the interface went down, or away: the link watch says so
                self._counters.add("vrrp_receive_failed")
                return

    def _read_one(self) -> None:
        raise AssertionError("a reader reads")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going away."""

    def logPrefix(self) -> str:
        return "vrrp"


class VrrpWire(_Reader):
    """Reads and writes advertisements of one address family.

    :param raw: the socket; :param frames: sends whole frames, for advertisements with a virtual MAC address.
    :param peers: send to these addresses and hear no others; none means the multicast group.
    :param min_ttl: TTL or hop limit below which nothing is heard.
    :param authenticator: signs and verifies; ``None`` where the group cannot.
    :param wall_clock: seconds since the epoch.
    :param heard: called with each good advertisement and its sender.
    """

    def __init__(
        self,
        *,
        reactor: IReactorFDSet,
        raw: socket.socket,
        frames: socket.socket,
        source: Address,
        scope: int,
        peers: Sequence[Address],
        min_ttl: int,
        authenticator: Authenticator | None,
        wall_clock: Callable[[], float],
        counters: Counters,
        heard: Callable[[Advertisement, Address], None],
    ) -> None:
        super().__init__(reactor, raw, counters)
        self._frames = frames
        self._source = source
        self._scope = scope
        self._destinations = tuple(peers) or (GROUPS[source.version],)
        self._accepts_from = frozenset(peers)
        self._min_ttl = min_ttl
        self._authenticator = authenticator
        self._wall_clock = wall_clock
        self._heard = heard

    def send(self, advertisement: Advertisement, mac: bytes | None = None) -> bool:
        """Send to all destinations; false when the kernel took none, which is counted.

        :param mac: the virtual MAC address to send from, so that switches learn where it is (RFC 9568 §7.3). Unicast
            goes out from the interface's own.
        """
        sent = False
        for destination in self._destinations:
            message = encode(advertisement, self._source, destination)
            if self._authenticator is not None:
                message = self._authenticator.sign(message, self._source, self._wall_clock())
            try:
                if mac is not None and destination.is_multicast:
                    kind = ETHERTYPE_IPV6 if destination.version == 6 else ETHERTYPE_IPV4
                    datagram = ip_datagram(message, self._source, destination)
                    self._frames.send(multicast_mac(destination) + mac + kind + datagram)
                elif destination.version == 6:
                    scope = self._scope if destination.is_multicast or destination.is_link_local else 0
                    self._raw.sendto(message, (str(destination), 0, 0, scope))
                else:
                    self._raw.sendto(message, (str(destination), 0))
                sent = True
            except OSError:
                self._counters.add("vrrp_send_failed", str(destination))
        return sent

    def _read_one(self) -> None:
        # An IPv4 header says where it came from; of IPv6 the socket does.
        datagram, ancillary, _, sender = self._raw.recvmsg(2048, _ANCILLARY if self._source.version == 6 else 0)
        try:
            said, source = self._understand(datagram, ancillary, sender[0])
        except BadAdvertisement as error:
            self._counters.add("vrrp_refused", error.why)
            return
        if said is not None:
            self._heard(said, source)

    def _understand(
        self, datagram: bytes, ancillary: Sequence[tuple[int, int, bytes]], sender: str
    ) -> tuple[Advertisement | None, Address]:
        source: Address
        destination: Address
        if self._source.version == 4:
            message, source, destination = from_ipv4_datagram(datagram, self._min_ttl)
        else:
            message = datagram
            source, destination = IPv6Address(sender.partition("%")[0]), GROUPS[6]
            for _, kind, value in ancillary:
                if kind == socket.IPV6_HOPLIMIT:
                    check_ttl(int.from_bytes(value[:4], "little"), source, self._min_ttl)
                elif kind == socket.IPV6_PKTINFO:
                    destination = IPv6Address(value[:16])
        if source == self._source:
            return None, source
        if self._accepts_from and source not in self._accepts_from:
            raise BadAdvertisement("stranger", f"advertisement from {source}, which is no node of this configuration")
        said = decode(message, source, destination)
        if self._authenticator is not None:
            self._authenticator.verify(message, source, self._wall_clock())
        return said, source


class ClaimReader(_Reader):
    """Hears who claims which address on the segment (ARP, neighbour advertisements)."""

    def __init__(
        self, *, reactor: IReactorFDSet, raw: socket.socket, counters: Counters, heard: Callable[[Claim], None]
    ) -> None:
        super().__init__(reactor, raw, counters)
        self._heard = heard

    def _read_one(self) -> None:
        claim = claim_in(self._raw.recv(256))
        if claim is not None:
            self._heard(claim)
