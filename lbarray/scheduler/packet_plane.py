"""The forwarding plane in Python, for kernels that allow us no eBPF: packet sockets in the reactor.

The VIPs that this node owns are hidden from the local stack. Each of their packets comes here, is decided by
:mod:`lbarray.scheduler.decision`, and leaves by the interface, or goes back up through loopback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import attrs
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IForwardingPlane
from lbarray.kernel.frames import VNET_HEADER, FrameSocket
from lbarray.kernel.hiding import hide, show_again
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import link
from lbarray.kernel.sysctls import write_sysctl
from lbarray.scheduler.abi import Verdict
from lbarray.scheduler.decision import Decision, PacketDecision
from lbarray.values import Address, PlaneCounters, PlaneFlow, PlaneService, ServiceId, Share, WorkerTarget

__all__ = ["PacketPlane", "undoers"]

#: Batches that are read before the reactor has its turn again.
_BATCHES = 8
#: How many connections have their way remembered as a whole.
_QUICK = 65536
_NEIGHBOUR_DISCOVERY = range(133, 138)
_TRIAL_S = 0.02


def undoers() -> dict[str, Callable[..., None]]:
    """What shows the VIPs to the local stack again, for a :class:`Journal`."""
    return {"hidden-vips": show_again}


@implementer(IForwardingPlane, IReadDescriptor)
class PacketPlane:
    """Rewrites frames in this process.

    It remembers connections as the eBPF plane does. What it cannot do is look into the kernel's connections before the
    kernel sees a packet: a node with this plane gives no second chance, and its workers answer what they do not know.

    :param reactor: provides IReactorFDSet.
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
        journal: Journal,
    ) -> None:
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
        self._services: tuple[PlaneService, ...] = ()
        self._far: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._packets = dict.fromkeys(Verdict, 0)
        self._octets = dict.fromkeys(Verdict, 0)
        self._shares: dict[ServiceId, dict[int, list[int]]] = {}
        self._quick: dict[bytes, tuple[Decision, bytes]] = {}

    # Life

    def attach(self) -> None:
        self._forget()
        mac = link(self._interface).mac
        self._decision = PacketDecision(
            mac=mac,
            secret=self._secret,
            table_size=self._table_size,
            self_index=self._self,
            held=lambda packet: True,
        )
        try:
            self._wire = FrameSocket(self._interface, receive=True)
            self._up = FrameSocket("lo", receive=False)
            self._accept_on_loopback()
            self._show()
        except SystemRefused:
            self.detach()
            raise
        self._reactor.addReader(self)
        self.log.warn(
            "the packet plane is Python: about {rate} packets per second on this machine, and no second chance",
            rate=f"{self._rate():,.0f}",
        )

    def detach(self) -> None:
        for each in (self._wire, self._up):
            if each is not None:
                if each is self._wire:
                    self._reactor.removeReader(self)
                each.close()
        self._wire = self._up = None
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
        decision = self._told()
        before = decision.active
        decision.set_active(vips)
        try:
            self._show()
        except SystemRefused:
            decision.set_active(before)
            raise

    def set_services(self, services: Sequence[PlaneService]) -> None:
        self._told().set_services(services)
        self._services = tuple(services)
        for service in set(self._shares) - {each.id for each in services}:
            del self._shares[service]
        self._show()

    def _show(self) -> None:
        """Take the packets of the VIPs that are ours now, and hide exactly those from the local stack."""
        assert self._decision is not None and self._wire is not None
        offered = {each.id.address for each in self._services}
        ours = [vip for vip in sorted(self._decision.active, key=str) if vip in offered]
        self._wire.only(ours)
        if ours:
            self._journal.record(self._undo)
            hide(self._interface, ours)
        else:
            self._journal.undo(self._undo)

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        far = sorted(worker.name for worker in workers if worker.tunnel)
        if far and far != self._far:
            self.log.warn(
                "the packet plane has no tunnels: nothing is sent to {nodes} beyond a router", nodes=", ".join(far)
            )
        self._far = far
        self._told().set_workers([worker for worker in workers if not worker.tunnel])

    def apply(self, rows: bytes) -> None:
        self._told().apply(rows)

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
        key = whole[16:22] + whole[36:48]
        known = self._quick.get(key)
        if (
            known is not None
            and whole[22:25] == b"\x08\0\x45"
            and whole[33] == 6
            and not (whole[30] & 0x3F or whole[31])
            and whole[57] & 0x12 == 0x10
            and whole[56] & 0xF0 >= 0x50
            and (whole[56] >> 4) * 4 + 20 <= (whole[26] << 8 | whole[27]) <= len(whole) - 24
        ):
            decision, head = known
            self._count(decision, len(whole) - VNET_HEADER)
            (out if decision.verdict is Verdict.FORWARDED else in_).append(whole[:VNET_HEADER] + head + whole[22:])
            return
        header, frame = whole[:VNET_HEADER], whole[VNET_HEADER:]
        if (
            frame[12:14] == b"\x86\xdd"
            and frame[20:21] == b"\x3a"
            and frame[54:55]
            and frame[54] in _NEIGHBOUR_DISCOVERY
        ):
            return  # was not hidden
        assert self._decision is not None
        decision = self._decision.decide(frame)
        self._count(decision, len(frame))
        if decision.verdict.drops:
            return
        frame = decision.frame or frame
        if not decision.verdict.leaves:
            frame = bytes(12) + frame[12:]
        (out if decision.verdict.leaves else in_).append(header + frame)
        if decision.verdict in (Verdict.FORWARDED, Verdict.PASSED_LOCAL) and not decision.begins_connection:
            self._remember(key, whole, frame[:12], decision)

    def _remember(self, key: bytes, whole: bytes, head: bytes, decision: Decision) -> None:
        if whole[22:25] == b"\x08\0\x45" and whole[33] == 6 and not (whole[30] & 0x3F or whole[31]):
            if len(self._quick) >= _QUICK:
                self._quick.clear()
            self._quick[key] = (attrs.evolve(decision, frame=b""), head)

    def _count(self, decision: Decision, octets: int) -> None:
        self._packets[decision.verdict] += 1
        self._octets[decision.verdict] += octets
        if decision.service is None or decision.worker is None:
            return
        share = self._shares.setdefault(decision.service, {}).setdefault(decision.worker, [0, 0, 0, 0, 0])
        if decision.verdict is Verdict.PASSED_ON:
            share[4] += 1
        else:
            share[0] += 1
            share[1] += octets
            share[2] += decision.begins_connection
            share[3] += decision.cached

    # What is asked

    def check(self) -> str:
        return "" if self._wire is not None else "its packet socket is closed"

    def counters(self) -> PlaneCounters:
        return PlaneCounters(
            {verdict.name.lower(): number for verdict, number in self._packets.items()},
            {verdict.name.lower(): number for verdict, number in self._octets.items()},
            {
                each.id: {index: Share(*share) for index, share in self._shares.get(each.id, {}).items()}
                for each in self._services
            },
        )

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        return self._decision.remembered(limit) if self._decision is not None else []
