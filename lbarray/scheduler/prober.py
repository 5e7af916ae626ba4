"""The scheduler's probes as a service: frames out, answers in, verdicts to whoever wants to know."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.kernel.links import link
from lbarray.kernel.rawsocket import answer_socket, packet_socket
from lbarray.scheduler.abi import mapped
from lbarray.scheduler.headers import parse
from lbarray.scheduler.probe import Answer, Heard, PathTable, Probe, Verdict, read_answer, reset, syn
from lbarray.scheduler.tunnel import encapsulate, outer_length
from lbarray.telemetry.counters import Counters
from lbarray.values import Address, NodeReport, ServiceId, WorkerTarget

__all__ = ["FIRST_PORT", "ProbeService", "ProbeWire"]

#: Ports of probes: above those that Linux gives to connections of its own (``net.ipv4.ip_local_port_range``).
FIRST_PORT, LAST_PORT = 61000, 65535
#: Every so many rounds a probe is full-sized.
FULL_SIZED_EVERY = 5


def frame_for(packet: bytes, target: WorkerTarget, mac: bytes, own: bytes) -> bytes:
    """The Ethernet frame in which a plane sends an IP packet of a client to a worker.

    :param mac: this node's; :param own: its address, where tunnels begin, sixteen octets.
    """
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    frame = target.mac + mac + kind + packet
    return encapsulate(frame, parse(frame, b"", {}), target, own, mac, 0) if target.tunnel else frame


@implementer(IReadDescriptor)
class _Answers:
    """One packet socket as the reactor sees it."""

    def __init__(self, answers: socket.socket, heard: Callable[[Heard], None]) -> None:
        self._answers = answers
        self._heard = heard

    def close(self) -> None:
        self._answers.close()

    def fileno(self) -> int:
        return self._answers.fileno()

    def doRead(self) -> None:
        for _ in range(64):
            if self._answers.fileno() < 0:
                return
            try:
                packet = self._answers.recv(256)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return  # the interface is down: silence says it
            heard = read_answer(packet)
            if heard is not None:
                self._heard(heard)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going away."""

    def logPrefix(self) -> str:
        return "probe"


class ProbeWire:
    """Packet sockets on one interface: frames out, answers to our addresses in.

    :param tunnels_from: this node's address, where its tunnels begin.
    :param heard: called with each answer that comes in.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        interface: str,
        addresses: Iterable[Address],
        tunnels_from: Address,
        heard: Callable[[Heard], None],
    ) -> None:
        """:raises SystemRefused: no privilege, or no such interface."""
        place = link(interface)
        self._tunnels_from = mapped(tunnels_from)
        self.mac = place.mac
        self.mtu = place.mtu
        self._reactor = reactor
        self._readers: list[_Answers] = []
        self._out = packet_socket(interface)
        try:
            for address in addresses:
                self._readers.append(_Answers(answer_socket(interface, address, FIRST_PORT), heard))
        except SystemRefused:
            self.close()
            raise
        for reader in self._readers:
            reactor.addReader(reader)

    def close(self) -> None:
        """Idempotent."""
        for reader in self._readers:
            self._reactor.removeReader(reader)
            reader.close()
        self._readers.clear()
        self._out.close()

    def send(self, packet: bytes, target: WorkerTarget) -> bool:
        """Send an IP packet to a worker as its clients' packets are sent; false when it cannot leave."""
        frame = frame_for(packet, target, self.mac, self._tunnels_from)
        try:
            self._out.send(frame)
        except OSError:
            return False
        return True


@attrs.define
class _Pending:
    worker: str
    service: ServiceId
    probe: Probe
    full: bool
    sent_at: float


class ProbeService(Service):
    """Probes every other accepting worker while this node is scheduler.

    :param addresses: this node's own, one for each version of IP that it has in the segment.
    :param members: an :class:`lbarray.interfaces.IMembershipSource`.
    :param target_for: how packets get to a node.
    :param assumed: workers that count as able until shown otherwise, when this node becomes scheduler.
    :param changed: the set of able workers is another now.
    :param open_wire: makes the sockets; called with our addresses and what to do with an answer.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        node_name: str,
        addresses: Callable[[], Mapping[int, Address]],
        members: Any,
        services: Sequence[ServiceId],
        target_for: Callable[[NodeReport], WorkerTarget],
        interval_s: float,
        fall: int,
        rise: int,
        assumed: Callable[[], set[str]],
        changed: Callable[[], None],
        open_wire: Callable[[Iterable[Address], Callable[[Heard], None]], Any],
        counters: Counters,
    ) -> None:
        self._clock = clock
        self._node_name = node_name
        self._find_addresses = addresses
        self._addresses: Mapping[int, Address] = {}
        self._members = members
        self._services = tuple(services)
        self._table = PathTable(fall=fall, rise=rise)
        self._target_for = target_for
        self._interval_s = interval_s
        self._assumed = assumed
        self._changed = changed
        self._open_wire = open_wire
        self._counters = counters
        self._wire: Any = None
        self._active = False
        self._wanted = False
        self._round = 0
        self._pending: dict[int, _Pending] = {}
        self._workers: dict[str, NodeReport] = {}
        self._port = FIRST_PORT
        self._told: frozenset[str] | None = None
        self._small_only: set[str] = set()
        self._gathering: IDelayedCall | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._loop = LoopingCall(self._probe_all)
        self._loop.clock = clock

    def _probed(self) -> list[ServiceId]:
        # An answer needs an address of ours to come back to.
        return [service for service in self._services if service.address.version in self._addresses]

    @property
    def able(self) -> frozenset[str] | None:
        """The workers that are proved, this node too; ``None`` while we are not scheduler or do not probe."""
        if self._wire is None:
            return None
        return self._table.able() | {self._node_name}

    def reconfigure(self, *, services: Sequence[ServiceId], interval_s: float, fall: int, rise: int) -> None:
        """Probe these services, like this, from now on. New ones are proved where the worker was."""
        proved = set(self.able or ())
        begins = not self._services or interval_s != self._interval_s
        self._table.judge(fall=fall, rise=rise)
        if begins or not services:
            wanted = self._wanted
            self.set_active(False)
            self._services, self._interval_s = tuple(services), interval_s
            self.set_active(wanted)
            return
        self._services = tuple(services)
        if self._wire is not None:
            self._watch(assumed=proved)

    def stopService(self) -> None:
        super().stopService()
        self.set_active(False)

    def set_active(self, active: bool) -> None:
        """This node is scheduler, or no longer is."""
        self._wanted = active
        if active == self._active or not self._interval_s or not self._services:
            return
        self._active = active
        if not active:
            self._end()
            return
        try:
            self._addresses = self._find_addresses()
            self._wire = self._open_wire(self._addresses.values(), self._heard)
        except SystemRefused as error:
            self.log.error("{error}; workers are not probed, their own word has to do", error=error)
            self._active = False
            return
        self._unsubscribe = self._members.subscribe(self._members_changed)
        self._watch(assumed=self._assumed())
        self._told = self.able
        self._loop.start(self._interval_s)

    def _end(self) -> None:
        self._unsubscribe()
        if self._loop.running:
            self._loop.stop()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._pending.clear()
        self._table.watch({}, ())
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def _members_changed(self, members: Sequence[NodeReport]) -> None:
        # Not within the call that told us: what we find may have to be told in turn.
        if self._gathering is None:
            self._gathering = self._clock.callLater(0, self._watch)

    def _others(self) -> dict[str, NodeReport]:
        return {
            report.name: report
            for report in self._members.members()
            if report.accepting and report.name != self._node_name
        }

    def _watch(self, assumed: set[str] | frozenset[str] = frozenset()) -> None:
        self._gathering = None
        self._workers = self._others()
        lives = {name: report.incarnation for name, report in self._workers.items()}
        for name, service in self._table.watch(lives, self._probed(), assumed):
            self._probe(self._workers[name], service, full=False)
        self._tell()

    def _probe_all(self) -> None:
        self._round += 1
        self._workers = self._others()
        # Those sent in the middle of the last round are given until the end of this one.
        late = self._clock.seconds() - 0.9 * self._interval_s
        for port, pending in list(self._pending.items()):
            if pending.sent_at <= late:
                del self._pending[port]
                self._lost(pending)
        for name, service in self._table.paths():
            if name in self._workers:
                self._probe(self._workers[name], service, full=False)
                if self._round % FULL_SIZED_EVERY == 0:
                    self._probe(self._workers[name], service, full=True)
        self._tell()

    def _probe(self, report: NodeReport, service: ServiceId, *, full: bool) -> None:
        target = self._target_for(report)
        if len(target.mac) != 6:
            self._table.failed(report.name, service, "its MAC address is not known")
            return
        self._port = self._port + 1 if self._port < LAST_PORT else FIRST_PORT
        if self._port in self._pending:
            return  # more probes under way than ports: the next round will see
        probe = Probe(service, self._addresses[service.address.version], self._port, secrets.randbits(32))
        self._pending[self._port] = _Pending(report.name, service, probe, full, self._clock.seconds())
        if self._wire.send(syn(probe, self._wire.mtu - outer_length(target) if full else 0), target):
            self._counters.add("probes_sent")
        else:
            # Our side's fault, such as an interface that is down: it says nothing of the worker.
            del self._pending[probe.port]
            self._counters.add("probes_unsent")

    def _heard(self, heard: Heard) -> None:
        pending = self._pending.get(heard.port)
        if pending is None or not heard.fits(pending.probe):
            return
        del self._pending[heard.port]
        self._counters.add("probes_answered", heard.answer.value)
        if heard.answer is Answer.ACCEPTED:
            if pending.worker in self._workers:
                self._wire.send(reset(pending.probe), self._target_for(self._workers[pending.worker]))
            if pending.full and pending.worker in self._small_only:
                self._small_only.discard(pending.worker)
                self.log.info("worker {name} answers large packets again", name=pending.worker)
            self._table.passed(pending.worker, pending.service)
        else:
            self._table.failed(pending.worker, pending.service, "it refuses: nothing listens there")
        self._tell()

    def _lost(self, pending: _Pending) -> None:
        self._counters.add("probes_lost", pending.worker)
        if not pending.full:
            self._table.failed(pending.worker, pending.service, "no answer")
        elif pending.worker in self._table.able() and pending.worker not in self._small_only:
            self._small_only.add(pending.worker)
            self.log.warn(
                "worker {name} answers small packets and not one of {mtu} octets: uploads to it will stall; "
                "compare the MTU on the way (ip link show)",
                name=pending.worker,
                mtu=self._wire.mtu,
            )

    def _tell(self) -> None:
        able = self.able
        if able == self._told or able is None:
            return
        before, self._told = self._told or frozenset(), able
        for name in sorted(able - before):
            self.log.info("worker {name} answers on the way of its clients' packets", name=name)
        for name in sorted((before - able) & self._workers.keys()):
            self.log.error("{trouble}", trouble=self._trouble(name, self._workers[name]))
        self._changed()

    def _trouble(self, name: str, report: NodeReport) -> str:
        wrong = [
            f"{service}: {why or 'no answer'}"
            for service, (verdict, why) in self._table.verdicts(name).items()
            if verdict is not Verdict.ABLE
        ]
        own_word = f"it says itself: {report.trouble}" if report.trouble else "it finds nothing wrong with itself"
        return (
            f"worker {name} gets no new connections: probes on the way of its clients' packets (to "
            f"{report.mac.hex(':') or 'no MAC'}) fail at {', '.join(wrong)}; {own_word}; "
            "look for a packet filter on it or between us (nft list ruleset)"
        )

    def status(self) -> dict[str, object]:
        """What the console shows."""
        workers: dict[str, object] = {}
        for name in sorted({name for name, _ in self._table.paths()}):
            workers[name] = {
                str(service): verdict.value if not why else f"{verdict.value}: {why}"
                for service, (verdict, why) in self._table.verdicts(name).items()
            }
        return {"active": self._wire is not None, "workers": workers, "only_small_packets": sorted(self._small_only)}
