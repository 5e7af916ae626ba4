"""The forwarding plane in Python, for kernels that allow us no eBPF: packet sockets in the reactor.

The VIPs are hidden from the local stack, on every node: a worker, too, must see a packet before its kernel does, which
would answer one of another worker's connections with a reset. Each of their packets comes here, is decided by
:mod:`lbarray.scheduler.decision`, and leaves by the interface, or goes back up through loopback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IForwardingPlane
from lbarray.kernel.connections import LISTENING, TIME_WAIT, ConnectionLookup
from lbarray.kernel.frames import VNET_HEADER, FrameSocket
from lbarray.kernel.hiding import hide, show_again
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import link
from lbarray.kernel.sysctls import write_sysctl
from lbarray.scheduler.abi import Verdict
from lbarray.scheduler.decision import Decision, PacketDecision
from lbarray.scheduler.headers import Packet
from lbarray.scheduler.offload import is_coalesced, segments, shifted, without_tags
from lbarray.scheduler.too_big import RateLimit, too_big_answer
from lbarray.values import Address, PlaneCounters, PlaneFlow, PlaneService, ServiceId, Share, WorkerCost, WorkerTarget

__all__ = ["PacketPlane", "undoers"]

#: Batches that are read before the reactor has its turn again.
_BATCHES = 8
#: Octets of a segment without options, with Ethernet and what the socket puts before it.
_SHORTEST = VNET_HEADER + 14 + 20 + 20
#: How many connections have their way remembered as a whole.
_QUICK = 65536
_NEIGHBOUR_DISCOVERY = range(133, 138)
_TRIAL_S = 0.02
#: How long the kernel takes its SYN cookies for good (``MAX_SYNCOOKIE_AGE``): two minutes at most.
_COOKIE_S = 120.0
_FOR_THIS_NODE = (Verdict.PASSED_LOCAL, Verdict.PASSED_DELIVERED)
#: What may become of all further segments of a connection, too, until the rows change or it begins anew.
_QUICK_VERDICTS = (Verdict.FORWARDED, Verdict.PASSED_ON, *_FOR_THIS_NODE)


def undoers() -> dict[str, Callable[..., None]]:
    """What shows the VIPs to the local stack again, for a :class:`Journal`."""
    return {"hidden-vips": show_again}


def _name(packet: Packet) -> bytes:
    """Of a packet's connection."""
    return packet.source + packet.vip + packet.source_port + packet.port


def _tunnel_ends(workers: Sequence[WorkerTarget]) -> tuple[Address, ...]:
    """The nodes that tunnels come from."""
    ends = (worker.address for worker in workers if worker.tunnel and not worker.local)
    return tuple(sorted(ends, key=lambda address: (address.version, int(address))))


@implementer(IForwardingPlane, IReadDescriptor)
class PacketPlane:
    """Rewrites frames in this process, as the eBPF plane does in the kernel.

    Two things differ. The kernel cannot be asked for a SYN cookie: an acknowledgement counts as one for as long as
    cookies last when its SYN was given to this node. And of two VLAN tags the inner one is not seen.

    :param reactor: provides IReactorFDSet and IReactorTime.
    :param address: this node's, where tunnels begin and end; without it there are none.
    :ivar answered: how many clients were told that their packets are too big.
    :ivar mtu: octets that a packet may have on its way through tunnels; the interface's unless set.
    """

    log = Logger()
    name = "packet"

    def __init__(
        self,
        *,
        reactor: Any,
        interface: str,
        table_size: int,
        secret: bytes,
        self_index: int,
        address: Address | None = None,
        journal: Journal,
    ) -> None:
        self.mtu: int | None = None
        self.answered = 0
        self._limit = RateLimit()
        self._address = address
        self._reactor = reactor
        self._interface = interface
        self._table_size = table_size
        self._secret = secret
        self._self = self_index
        self._journal = journal
        self._undo = Undo("hidden-vips", ())
        self._decision: PacketDecision | None = None
        self._wire: FrameSocket | None = None
        self._up: FrameSocket | None = None
        self._connections: ConnectionLookup | None = None
        self._mac = b""
        self._own = b"" if address is None else address.packed
        self._services: tuple[PlaneService, ...] = ()
        self._far: tuple[Address, ...] = ()
        self._forget()

    def _forget(self) -> None:
        self._packets = dict.fromkeys(Verdict, 0)
        self._octets = dict.fromkeys(Verdict, 0)
        self._shares: dict[ServiceId, dict[int, list[int]]] = {}
        self._quick: dict[bytes, tuple[Decision, bytes]] = {}
        self._syns: tuple[set[bytes], set[bytes]] = (set(), set())
        self._syns_since = 0.0

    # Life

    def attach(self) -> None:
        self._forget()
        place = link(self._interface)
        self._mac = place.mac
        self._decision = PacketDecision(
            mac=place.mac,
            secret=self._secret,
            table_size=self._table_size,
            self_index=self._self,
            address=self._address,
            mtu=self.mtu or place.mtu,
            held=self._held,
        )
        try:
            self._connections = ConnectionLookup()
            self._wire = FrameSocket(self._interface, receive=True)
            self._up = FrameSocket("lo", receive=False)
            self._accept_on_loopback()
            self._show()
        except SystemRefused:
            self.detach()
            raise
        self._reactor.addReader(self)
        self.log.warn(
            "the packet plane is Python: about {rate} packets per second on this machine; all packets of its clients "
            "pass through it, also those that another node has scheduled",
            rate=f"{self._rate():,.0f}",
        )

    def detach(self) -> None:
        for each in (self._wire, self._up):
            if each is not None:
                if each is self._wire:
                    self._reactor.removeReader(self)
                each.close()
        self._wire = self._up = None
        if self._connections is not None:
            self._connections.close()
            self._connections = None
        try:
            self._journal.undo(self._undo)
        except SystemRefused as error:
            self.log.error("{error}", error=error)

    def _accept_on_loopback(self) -> None:
        """Packets of clients are to be taken from loopback, where strict reverse path filtering would refuse them."""
        name = "net.ipv4.conf.lo.rp_filter"
        before = write_sysctl(name, "0")
        if before != "0":
            self._journal.record(Undo("sysctl", (name, before)))

    def _rate(self) -> float:
        """Packets per second that are decided here, tried for a moment: reading and sending take as long again."""
        assert self._decision is not None
        head = b"\0" * 12 + b"\x08\0\x45\0\0\x28\0\0\0\0\x40\x06\0\0"
        frame = head + bytes((198, 51, 100, 1, 192, 0, 2, 1)) + b"\x30\x39\0\x50" + bytes(8) + b"\x50\x10" + bytes(6)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < _TRIAL_S:
            self._decision.decide(frame)
            count += 1
        return count / _TRIAL_S / 2

    # What it is told

    def set_active(self, vips: Collection[Address]) -> None:
        self._told().set_active(vips)

    def set_services(self, services: Sequence[PlaneService]) -> None:
        before, self._services = self._services, tuple(services)
        try:
            self._show()
        except SystemRefused:
            self._services = before
            raise
        self._told().set_services(services)
        for service in set(self._shares) - {each.id for each in services}:
            del self._shares[service]

    def _show(self) -> None:
        """Take the packets of the VIPs and what is in tunnels, and hide exactly these from the local stack."""
        assert self._wire is not None
        vips = sorted({each.id.address for each in self._services}, key=str)
        self._wire.only(vips, self._address if self._far else None)
        if vips or self._far:
            self._journal.record(self._undo)
            hide(self._interface, vips, self._far)
        else:
            self._journal.undo(self._undo)

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        decision = self._told()
        decision.mtu = self.mtu or link(self._interface).mtu
        decision.set_workers(workers)
        far = () if self._address is None else _tunnel_ends(workers)
        if far != self._far:
            self._far = far
            self._show()

    def apply(self, rows: bytes) -> None:
        self._told().apply(rows)

    def set_costs(self, costs: Mapping[int, WorkerCost]) -> None:
        # Of no consequence to connections whose way is worked out.
        assert self._decision is not None
        self._decision.set_costs(costs)

    def _told(self) -> PacketDecision:
        """Whatever is told next makes what was worked out before worthless."""
        assert self._decision is not None
        self._quick.clear()
        return self._decision

    # Packets

    def fileno(self) -> int:
        return -1 if self._wire is None else self._wire.fileno()

    def logPrefix(self) -> str:
        return "packet plane"

    def connectionLost(self, reason: object) -> None:
        """The reactor found the socket unusable: nothing to do that :meth:`detach` does not."""

    def doRead(self) -> None:
        wire, up = self._wire, self._up
        if wire is None or up is None:
            return
        for _ in range(_BATCHES):
            frames = wire.receive()
            out: list[bytes] = []
            in_: list[bytes] = []
            for whole in frames:
                self.handle(whole, out, in_)
            wire.send(out)
            up.send(in_)
            if len(frames) < wire.BATCH:
                return

    def handle(self, whole: bytes, out: list[bytes], in_: list[bytes]) -> None:
        """Decide one frame, behind its header, and add what leaves to ``out``, what goes up to ``in_``."""
        # The most of all packets: a segment of an IPv4 connection whose way is known. What is checked here is all that
        # makes such a packet good; anything else takes the long way.
        key = whole[10:22] + whole[36:48]
        known = self._quick.get(key)
        if (
            known is not None
            and len(whole) >= _SHORTEST
            and whole[22:25] == b"\x08\0\x45"
            and whole[33] == 6
            and not (whole[30] & 0x3F or whole[31])
            and whole[57] & 0x12 == 0x10
            and whole[56] & 0xF0 >= 0x50
            and (whole[56] >> 4) * 4 + 20 <= (whole[26] << 8 | whole[27]) <= len(whole) - 24
        ):
            decision, head = known
            self._count(decision, len(whole) - VNET_HEADER)
            (out if decision.verdict.leaves else in_).append(whole[:VNET_HEADER] + head + whole[24:])
            return
        header, frame = whole[:VNET_HEADER], whole[VNET_HEADER:]
        if (
            frame[12:14] == b"\x86\xdd"
            and frame[20:21] == b"\x3a"
            and frame[54:55]
            and frame[54] in _NEIGHBOUR_DISCOVERY
        ):
            return  # was not hidden
        hop, sender = 0, None
        if self._far:
            assert self._decision is not None
            found = self._decision.find_tunnel(frame)
            if found is not None:
                header, frame = shifted(header, len(found.frame) - len(frame)), found.frame
                hop, sender = found.hop, found.sender
            elif self._own in (frame[30:34], frame[38:54]):
                return  # neither was this
            if is_coalesced(header):  # it may have to go into a tunnel, which takes one packet at a time
                for each in segments(header, frame):
                    self._decide(*each, hop, sender, out, in_)
                return
        decision = self._decide(header, frame, hop, sender, out, in_)
        if decision.begins_connection:
            self._quick.pop(key, None)
        elif not hop and decision.settled and decision.verdict in _QUICK_VERDICTS:
            self._remember(key, whole, decision)

    def _decide(
        self, header: bytes, frame: bytes, hop: int, sender: int | None, out: list[bytes], in_: list[bytes]
    ) -> Decision:
        """The long way of a frame that is in no tunnel any more."""
        assert self._decision is not None
        decision = self._decision.decide_inner(frame, hop, sender)
        self._count(decision, len(frame))
        if decision.verdict.drops:
            if decision.fits:
                self._too_big(frame, decision.fits, out)
            return decision
        changed = decision.frame or frame
        if decision.verdict.leaves:
            out.append(shifted(header, len(changed) - len(frame)) + changed)
        elif decision.verdict in _FOR_THIS_NODE or hop or frame[:6] == self._mac:
            # Of all others the kernel would take only what was sent to this interface.
            header, changed = without_tags(header, changed)
            in_.append(header + bytes(12) + changed[12:])
            if decision.begins_connection and decision.packet is not None:
                self._note_syn(decision.packet)
        return decision

    def _too_big(self, frame: bytes, fits: int, out: list[bytes]) -> None:
        answer = too_big_answer(frame, fits, self._mac)
        if answer and self._limit.take(self._reactor.seconds()):
            out.append(bytes(VNET_HEADER) + answer)
            self.answered += 1

    def _remember(self, key: bytes, whole: bytes, decision: Decision) -> None:
        if whole[22:25] != b"\x08\0\x45" or whole[33] != 6 or whole[30] & 0x3F or whole[31]:
            return
        head = bytes(12) + whole[22:24]
        if decision.verdict.leaves:
            if len(decision.frame) != len(whole) - VNET_HEADER:  # into a tunnel
                return
            head = decision.frame[:14]
        if len(self._quick) >= _QUICK:
            self._quick.clear()
        self._quick[key] = (attrs.evolve(decision, frame=b"", packet=None), head)

    # Connections

    def _held(self, packet: Packet) -> bool:
        """Does this machine hold the connection of a packet?"""
        assert self._connections is not None
        try:
            state = self._connections.state(packet.source, packet.source_port, packet.vip, packet.port)
        except SystemRefused as error:
            self.log.error("{error}", error=error)
            return True
        if state != LISTENING:  # in TIME_WAIT the client may have begun anew from the same port, at another worker
            return state not in (None, TIME_WAIT)
        return any(_name(packet) in some for some in self._syns)

    def _note_syn(self, packet: Packet) -> None:
        """The kernel may answer it with a cookie, and forget it."""
        now = self._reactor.seconds()
        if now - self._syns_since > _COOKIE_S or len(self._syns[0]) >= _QUICK:
            self._syns, self._syns_since = (set(), self._syns[0]), now
        self._syns[0].add(_name(packet))

    def _count(self, decision: Decision, octets: int) -> None:
        self._packets[decision.verdict] += 1
        self._octets[decision.verdict] += octets
        if decision.service is None or decision.worker is None:
            return
        share = self._shares.setdefault(decision.service, {}).setdefault(decision.worker, [0] * 6)
        if decision.verdict is Verdict.PASSED_ON:
            share[4] += 1
        else:
            share[0] += 1
            share[1] += octets
            share[2] += decision.begins_connection
            share[3] += decision.cached
            share[5] += decision.chosen

    # What is asked

    def check(self) -> str:
        return "" if self._wire is not None else "its packet socket is closed"

    def counters(self) -> PlaneCounters:
        answered = {"answered_too_big": self.answered}
        return PlaneCounters(
            {**{verdict.name.lower(): number for verdict, number in self._packets.items()}, **answered},
            {verdict.name.lower(): number for verdict, number in self._octets.items()},
            {
                each.id: {index: Share(*share) for index, share in self._shares.get(each.id, {}).items()}
                for each in self._services
            },
        )

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        return self._decision.remembered(limit) if self._decision is not None else []
