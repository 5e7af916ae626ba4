"""The packet decision in Python: the oracle of the eBPF program's tests, and the brain of the AF_PACKET plane."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import attrs

from lbarray.scheduler.abi import (
    FLOW_BITS,
    MARK_ONCE,
    MARK_TWICE,
    MAX_FRAGMENTS,
    NOBODY,
    PROTOCOLS,
    ROW,
    Verdict,
    client_mask,
    mapped,
    unmapped,
)
from lbarray.scheduler.headers import Kind, Packet, Refused, parse
from lbarray.scheduler.siphash import siphash13
from lbarray.scheduler.tunnel import Found, encapsulate, find_tunnel, outer_length
from lbarray.values import Address, HashBy, PlaneFlow, PlaneService, ServiceId, WorkerTarget

__all__ = ["Decision", "Memory", "PacketDecision", "hash_client", "numbered", "place_of", "previous_owner"]

_TCP = 6
Key = TypeVar("Key")
Value = TypeVar("Value")


def hash_client(secret: bytes, source: bytes, source_port: bytes, hash_by: HashBy, mask: bytes) -> int:
    """The hash of a flow, 64 bits.

    :param source: the client's address, sixteen octets, :func:`lbarray.scheduler.abi.mapped`.
    :param source_port: two octets in network order; :param secret: sixteen octets that the array shares.
    """
    if hash_by is HashBy.CLIENT:
        source, source_port = bytes(octet & bits for octet, bits in zip(source, mask, strict=True)), b""
    short = source[:12] == b"\0" * 10 + b"\xff\xff"
    return siphash13(secret, (source[12:] if short else source) + source_port)


def place_of(hashed: int, source: bytes, source_port: bytes, number: int) -> int:
    """Where in the memory a connection is, as ``bpf/memory.h`` computes it.

    :param hashed: the lower half of its hash; :param source: the client's address, sixteen octets.
    :param number: of its service.
    """
    last, port = int.from_bytes(source[12:], sys.byteorder), int.from_bytes(source_port, sys.byteorder)
    mixed = hashed + last * 0x9E3779B1 + port * 0x85EBCA6B + number * 0xC2B2AE35
    return (mixed & 0xFFFFFFFF) >> (32 - FLOW_BITS)


def numbered(services: Sequence[PlaneService], before: Mapping[ServiceId, int], last: int) -> dict[ServiceId, int]:
    """A number for each service: what is remembered of one is not taken for another's that has its place.

    :param before: the numbers of those until now; :param last: the one given last.
    """
    numbers = {each.id: before[each.id] for each in services if each.id in before}
    for each in services:
        while each.id not in numbers:
            last = last % 0xFFFF + 1
            if last not in numbers.values():
                numbers[each.id] = last
    return numbers


@attrs.frozen
class Memory:
    """What is known of a connection: ``worker`` has it, learned when the rows were those of ``epoch``."""

    source: bytes
    source_port: bytes
    number: int
    worker: int
    epoch: int


@attrs.frozen
class Decision:
    """What becomes of a frame.

    :ivar worker: index of whom it is for; :ivar frame: what leaves, or is handed up, instead of it; empty for the
        frame as it came.
    :ivar service: what it is for, where that is known; :ivar packet: what was read of it.
    :ivar settled: the connection's next segments will be decided in the same way: the kernel was not asked.
    :ivar fits: octets that would, of a packet that is too big and whose sender shall be told.
    """

    verdict: Verdict
    worker: int | None = None
    frame: bytes = b""
    service: ServiceId | None = None
    begins_connection: bool = False
    cached: bool = False
    fits: int = 0
    settled: bool = attrs.field(default=True, eq=False)
    packet: Packet | None = attrs.field(default=None, eq=False)


@attrs.frozen
class _Service:
    service: PlaneService
    mask: bytes
    number: int


class PacketDecision:
    """What the packet program's maps hold, and what it makes of a frame.

    :param mac: this node's, six octets; :param self_index: its worker index.
    :param secret: of the flow hash, sixteen octets.
    :param address: this node's, where tunnels begin and end; :param mtu: of its interface.
    :param held: whether this machine holds the connection of a packet.
    """

    def __init__(
        self,
        *,
        mac: bytes,
        secret: bytes,
        table_size: int,
        self_index: int,
        address: Address | None = None,
        mtu: int = 1500,
        held: Callable[[Packet], bool] = lambda packet: False,
    ) -> None:
        self.active: frozenset[Address] = frozenset()
        self._mac = mac
        self._secret = secret
        self._table_size = table_size
        self._self = self_index
        self._held = held
        self._own = mapped(address) if address is not None else bytes(16)
        self.mtu = mtu
        self._tunnel_peers: dict[bytes, int] = {}
        self._services: dict[tuple[bytes, bytes, int], _Service] = {}
        self._vips: dict[bytes, bool] = {}
        self._workers: dict[int, WorkerTarget] = {}
        self._peers: dict[bytes, int] = {}
        self._rows = ROW.pack(NOBODY, NOBODY, NOBODY, NOBODY) * table_size
        self._epoch = 0
        self._numbers: dict[ServiceId, int] = {}
        self._last_number = 0
        self._flows: dict[int, Memory] = {}
        self._asked = False
        self._fragments: dict[tuple[bytes, bytes, tuple[bytes, int]], Decision] = {}

    # What the plane is told

    def set_active(self, vips: Collection[Address]) -> None:
        """As :meth:`lbarray.interfaces.IForwardingPlane.set_active`."""
        self.active = frozenset(vips)
        self.set_services([each.service for each in self._services.values()])

    def set_services(self, services: Sequence[PlaneService]) -> None:
        """As :meth:`lbarray.interfaces.IForwardingPlane.set_services`."""
        self._numbers = numbered(services, self._numbers, self._last_number)
        self._last_number = max([self._last_number, *self._numbers.values()])
        self._services = {
            (mapped(each.id.address), each.id.port.to_bytes(2, "big"), PROTOCOLS[each.id.protocol]): _Service(
                each, client_mask(each), self._numbers[each.id]
            )
            for each in services
        }
        self._vips = {mapped(each.id.address): each.id.address in self.active for each in services}

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        """As :meth:`lbarray.interfaces.IForwardingPlane.set_workers`."""
        reachable = [each for each in workers if each.local or len(each.mac) == 6]
        self._workers = {each.index: each for each in reachable if not each.lost}
        others = [each for each in reachable if not each.local]
        self._peers = {each.mac: each.index for each in others if not each.tunnel}
        self._tunnel_peers = {mapped(each.address): each.index for each in others if each.tunnel}

    def apply(self, rows: bytes) -> None:
        """As :meth:`lbarray.interfaces.IForwardingPlane.apply`."""
        if len(rows) != self._table_size * ROW.size:
            raise ValueError(f"{len(rows)} octets for a table of {self._table_size} rows")
        self._rows = rows
        self._epoch = (self._epoch + 1) & 0xFFFF

    def remembered(self, limit: int) -> list[PlaneFlow]:
        """Connections, at most ``limit`` of them."""
        services = {number: service for service, number in self._numbers.items()}
        return [
            PlaneFlow(
                services[each.number], unmapped(each.source), int.from_bytes(each.source_port, "big"), each.worker
            )
            for each in itertools.islice(self._flows.values(), limit)
            if each.number in services
        ]

    # What it decides

    def decide(self, frame: bytes) -> Decision:
        """What becomes of an Ethernet frame."""
        found = self.find_tunnel(frame)
        if found is None:
            return self.decide_inner(frame)
        decision = self.decide_inner(found.frame, found.hop, found.sender)
        return decision if decision.frame else attrs.evolve(decision, frame=found.frame)

    def find_tunnel(self, frame: bytes) -> Found | None:
        """What another node has sent in a tunnel, where ``frame`` is one."""
        return find_tunnel(frame, self._own, self._tunnel_peers) if self._tunnel_peers else None

    def decide_inner(self, frame: bytes, hop: int = 0, sender: int | None = None, largest: int = 0) -> Decision:
        """What becomes of an Ethernet frame that is in no tunnel, or was taken out of one.

        :param hop: how it came, and by :param sender: whom, as a tunnel said.
        :param largest: octets of the largest packet that it was coalesced from; 0: it is one.
        """
        self._asked = False
        try:
            packet = parse(frame, self._mac, self._peers, hop, sender)
        except Refused as refused:
            packet, decision = refused.packet, Decision(self._refuse(refused.verdict, refused.packet))
        else:
            decision = self._follow(packet) if packet.kind == Kind.LATER_FRAGMENT else self._decide(packet)
            if packet.is_first and decision.verdict <= Verdict.PASSED_LOCAL:
                _remember(self._fragments, self._fragment_of(packet), decision, MAX_FRAGMENTS)
            decision = self._fit(packet, decision, largest or len(frame) - 14)
        changed = self._frame(frame, packet, decision)
        return attrs.evolve(decision, frame=changed, packet=packet, settled=not self._asked)

    def _fit(self, packet: Packet, decision: Decision, largest: int) -> Decision:
        """A packet that is to go through a tunnel must fit into it, and have no VLAN tag."""
        target = self._workers.get(-1 if decision.worker is None else decision.worker)
        if target is None or not target.tunnel or not decision.verdict.leaves:
            return decision
        if packet.layer3 != 14:
            return Decision(Verdict.PASSED_NO_WORKER)
        if largest + outer_length(target) > self.mtu:
            answered = not packet.hop and packet.kind != Kind.QUOTED
            return Decision(Verdict.DROPPED_TOO_BIG, fits=self.mtu - outer_length(target) if answered else 0)
        return decision

    def _refuse(self, verdict: Verdict, packet: Packet) -> Verdict:
        """Only what is for a VIP of ours, or was scheduled to us, may be dropped."""
        if not verdict.drops:
            return verdict
        active = self._vips.get(packet.vip)
        if active is None:
            return Verdict.PASSED_NO_SERVICE
        return verdict if active or packet.hop else Verdict.PASSED_INACTIVE

    def _decide(self, packet: Packet) -> Decision:
        found = self._services.get((packet.vip, packet.port, packet.protocol))
        if found is None:
            return Decision(Verdict.PASSED_NO_SERVICE)
        service = found.service
        if not packet.hop and service.id.address not in self.active:
            return Decision(Verdict.PASSED_INACTIVE)
        value = hash_client(self._secret, packet.source, packet.source_port, service.hash_by, found.mask)
        row = ROW.unpack_from(self._rows, (value >> 32) * self._table_size // 2**32 * ROW.size)
        place = place_of(value & 0xFFFFFFFF, packet.source, packet.source_port, found.number)
        flow = Memory(packet.source, packet.source_port, found.number, self._self, self._epoch)
        if not packet.hop:
            return self._schedule(packet, row, service.id, place, flow)
        verdict, worker = Verdict.PASSED_DELIVERED, None
        if packet.begins_connection:
            self._flows[place] = flow
        elif row[1] != NOBODY or row[0] != self._self:
            verdict, worker = self._second_chance(packet, row, verdict, None, place, flow)
        return Decision(verdict, worker, service=service.id, begins_connection=packet.begins_connection)

    def _recall(self, place: int, flow: Memory) -> Memory | None:
        found = self._flows.get(place)
        if found is None or found.source != flow.source:
            return None
        return found if (found.source_port, found.number) == (flow.source_port, flow.number) else None

    def _schedule(self, packet: Packet, row: tuple[int, ...], service: ServiceId, place: int, flow: Memory) -> Decision:
        index, begins, cached = row[0], packet.begins_connection, False
        if begins:
            self._flows[place] = attrs.evolve(flow, worker=index)
        elif row[1] != NOBODY:
            known = self._recall(place, flow)
            if known is not None and known.worker in self._workers:
                index, cached = known.worker, True
        target = self._workers.get(index)
        if target is None:
            return Decision(Verdict.PASSED_NO_WORKER, service=service)
        verdict, worker = Verdict.FORWARDED, index
        if target.local:
            verdict, chosen = self._second_chance(packet, row, Verdict.PASSED_LOCAL, index, place, flow)
            worker = index if chosen is None else chosen
            cached = cached and verdict is not Verdict.PASSED_ON
        return Decision(verdict, worker, service=service, begins_connection=begins, cached=cached)

    def _second_chance(
        self, packet: Packet, row: tuple[int, ...], deliver: Verdict, worker: int | None, place: int, flow: Memory
    ) -> tuple[Verdict, int | None]:
        """What the kernel said of a connection holds until the rows change, or it begins anew."""
        if packet.protocol != _TCP or packet.begins_connection or packet.hop == 4:
            return deliver, worker
        previous = previous_owner(row, self._self, packet.sender, self._workers, sent=packet.hop > 0)
        if previous is None:
            return deliver, worker
        known = self._recall(place, flow)
        if known is not None and known.epoch == self._epoch:
            if known.worker == self._self:
                return deliver, worker
            if known.worker == previous.index:
                return Verdict.PASSED_ON, previous.index
        self._asked = True
        if self._held(packet):
            self._flows[place] = flow
            return deliver, worker
        if known is None or known.worker != self._self:
            self._flows[place] = attrs.evolve(flow, worker=previous.index)
        return Verdict.PASSED_ON, previous.index

    def _fragment_of(self, packet: Packet) -> tuple[bytes, bytes, tuple[bytes, int]]:
        assert packet.fragment is not None
        return packet.source, packet.vip, packet.fragment

    def _follow(self, packet: Packet) -> Decision:
        first = self._fragments.get(self._fragment_of(packet))
        if first is None:
            verdict = self._refuse(Verdict.DROPPED_LONE_FRAGMENT, packet)
            if verdict is Verdict.DROPPED_LONE_FRAGMENT and packet.hop:
                verdict = Verdict.PASSED_DELIVERED
            return Decision(verdict)
        if first.worker not in self._workers:
            return Decision(Verdict.PASSED_NO_WORKER)
        return Decision(first.verdict, first.worker, service=first.service)

    def _frame(self, frame: bytes, packet: Packet, decision: Decision) -> bytes:
        if decision.verdict.leaves and decision.worker is not None:
            worker = self._workers[decision.worker]
            if worker.tunnel:
                passes = max(1, packet.hop) if decision.verdict is Verdict.PASSED_ON else 0
                return encapsulate(frame, packet, worker, self._own, self._mac, passes)
            ethertype = frame[packet.layer3 - 2 : packet.layer3]
            if decision.verdict is Verdict.PASSED_ON:
                ethertype = (MARK_TWICE if packet.hop >= 2 else MARK_ONCE).to_bytes(2, "big")
                if packet.hop >= 3:
                    frame = _end_life(frame, packet)
            target = worker.mac + self._mac
            return target + frame[12 : packet.layer3 - 2] + ethertype + frame[packet.layer3 :]
        if packet.hop >= 2 and not decision.verdict.drops and decision.verdict is not Verdict.PASSED_ELSEWHERE:
            return frame[: packet.layer3 - 2] + packet.ethertype.to_bytes(2, "big") + frame[packet.layer3 :]
        return b""


def previous_owner(
    row: tuple[int, ...], self_index: int, sender: int | None, workers: Mapping[int, WorkerTarget], *, sent: bool = True
) -> WorkerTarget | None:
    """Who had a row before this worker did and can be reached.

    Nodes may remember a row differently, for changes that come close together are one change to some and several to
    others, and while a change spreads some have not heard of it. So a worker whose the row never was goes on behind the
    one that sent the packet; and where nobody is left there, what another node has sent goes to whoever else had the
    row or has it: that node may know something that is not known here yet.

    :param row: (worker now, workers before) as this worker knows it; :param workers: those that are known, by index.
    :param sender: the worker that passed it on; :param sent: another node scheduled it here, or passed it on.
    """
    behind = self_index if self_index in row else sender
    earlier = row[row.index(behind) + 1 :] if behind in row else row
    if sent:
        earlier += row[1:] + row[:1]
    known = (workers.get(index) for index in earlier if index != sender)
    return next((worker for worker in known if worker is not None and not worker.local), None)


def _remember(store: dict[Key, Value], key: Key, value: Value, limit: int) -> None:
    """Keep the most recent ``limit``."""
    store.pop(key, None)
    store[key] = value
    if len(store) > limit:
        del store[next(iter(store))]


def _end_life(frame: bytes, packet: Packet) -> bytes:
    """A frame whose packet has a time to live of 1; an IPv4 checksum is updated (RFC 1624)."""
    at = packet.layer3
    if packet.ethertype != 0x0800:
        return frame[: at + 7] + b"\1" + frame[at + 8 :]
    old, check = frame[at + 8] << 8, int.from_bytes(frame[at + 10 : at + 12], "big")
    total = (~check & 0xFFFF) + (~old & 0xFFFF) + (1 << 8)
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    check = ~total & 0xFFFF
    return frame[: at + 8] + b"\1" + frame[at + 9 : at + 10] + check.to_bytes(2, "big") + frame[at + 12 :]
