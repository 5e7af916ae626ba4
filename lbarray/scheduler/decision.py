"""The packet decision in Python: the oracle of the eBPF program's tests, and the brain of the AF_PACKET plane."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import attrs

from lbarray.scheduler.abi import (
    MARK_ONCE,
    MARK_TWICE,
    MAX_FRAGMENTS,
    NOBODY,
    PASSES,
    PASSES_OF_TWO_ROWS,
    PROTOCOLS,
    ROW,
    Choice,
    Verdict,
    client_mask,
    mapped,
    unmapped,
)
from lbarray.scheduler.choice import Burdens, choices
from lbarray.scheduler.flow import Memory, hash_client, numbered, place_of
from lbarray.scheduler.headers import Kind, Packet, Refused, parse
from lbarray.scheduler.owners import Row, list_owners, next_owner
from lbarray.scheduler.tunnel import Found, encapsulate, find_tunnel, outer_length
from lbarray.values import Address, PlaneFlow, PlaneService, ServiceId, WorkerCost, WorkerTarget

__all__ = ["Decision", "PacketDecision"]

_TCP = 6
Key = TypeVar("Key")
Value = TypeVar("Value")


@attrs.frozen
class Decision:
    """What becomes of a frame.

    :ivar worker: index of whom it is for; :ivar frame: what leaves, or is handed up, instead of it; empty for the
        frame as it came.
    :ivar service: what it is for, where that is known; :ivar packet: what was read of it.
    :ivar chosen: over the worker of its row.
    :ivar settled: the connection's next segments will be decided in the same way: the kernel was not asked.
    :ivar fits: octets that would, of a packet that is too big and whose sender shall be told.
    """

    verdict: Verdict
    worker: int | None = None
    frame: bytes = b""
    service: ServiceId | None = None
    begins_connection: bool = False
    cached: bool = False
    chosen: bool = False
    fits: int = 0
    settled: bool = attrs.field(default=True, eq=False)
    packet: Packet | None = attrs.field(default=None, eq=False)


@attrs.frozen
class _Service:
    service: PlaneService
    mask: bytes
    number: int
    choice: Choice


@attrs.frozen
class _Found:
    """Where a packet's flow has its rows and its place in the memory, and what would be remembered of it."""

    service: _Service
    row: Row
    half: int
    place: int
    flow: Memory


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
        self._burdens = Burdens()
        self._choices: dict[ServiceId, Choice] = {}
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
        self._choices = choices(services, self._choices)
        self._services = {
            (mapped(each.id.address), each.id.port.to_bytes(2, "big"), PROTOCOLS[each.id.protocol]): _Service(
                each, client_mask(each), self._numbers[each.id], self._choices[each.id]
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

    def set_costs(self, costs: Mapping[int, WorkerCost]) -> None:
        """As :meth:`lbarray.interfaces.IForwardingPlane.set_costs`."""
        self._burdens.set(costs)

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

    def decide_inner(self, frame: bytes, hop: int = 0, sender: int | None = None) -> Decision:
        """What becomes of an Ethernet frame that is in no tunnel, or was taken out of one.

        :param hop: how it came, and by :param sender: whom, as a tunnel said.
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
            decision = self._fit(packet, decision, len(frame) - 14)
        changed = self._frame(frame, packet, decision)
        return attrs.evolve(decision, frame=changed, packet=packet, settled=not self._asked)

    def _fit(self, packet: Packet, decision: Decision, octets: int) -> Decision:
        """A packet that is to go through a tunnel must fit into it, and have no VLAN tag."""
        target = self._workers.get(-1 if decision.worker is None else decision.worker)
        if target is None or not target.tunnel or not decision.verdict.leaves:
            return decision
        if packet.layer3 != 14:
            return Decision(Verdict.PASSED_NO_WORKER)
        if octets + outer_length(target) > self.mtu:
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
        half = value & 0xFFFFFFFF
        place = place_of(half, packet.source, packet.source_port, found.number)
        flow = Memory(packet.source, packet.source_port, found.number, self._self, self._epoch, packet.sequence)
        flow_at = _Found(found, self._row_at(value >> 32), half, place, flow)
        if not packet.hop:
            return self._schedule(packet, flow_at)
        verdict, worker = Verdict.PASSED_DELIVERED, None
        if packet.begins_connection:
            self._flows[place] = flow
        elif found.choice or flow_at.row[1] != NOBODY or flow_at.row[0] != self._self:
            verdict, worker = self._second_chance(packet, flow_at, verdict, None)
        return Decision(verdict, worker, service=service.id, begins_connection=packet.begins_connection)

    def _row_at(self, half: int) -> Row:
        return ROW.unpack_from(self._rows, half * self._table_size // 2**32 * ROW.size)

    def _recall(self, at: _Found) -> Memory | None:
        found, flow = self._flows.get(at.place), at.flow
        if found is None or found.source != flow.source:
            return None
        return found if (found.source_port, found.number) == (flow.source_port, flow.number) else None

    def _schedule(self, packet: Packet, at: _Found) -> Decision:
        index, begins, cached = at.row[0], packet.begins_connection, False
        if begins:
            if at.service.choice is Choice.LESS_LOADED:
                index = self._less_loaded(at)
            self._flows[at.place] = attrs.evolve(at.flow, worker=index)
        elif at.service.choice or at.row[1] != NOBODY:
            known = self._recall(at)
            if known is not None and known.worker in self._workers:
                index, cached = known.worker, True
        service, target = at.service.service.id, self._workers.get(index)
        if target is None:
            return Decision(Verdict.PASSED_NO_WORKER, service=service)
        verdict, worker = Verdict.FORWARDED, index
        if target.local:
            verdict, chosen = self._second_chance(packet, at, Verdict.PASSED_LOCAL, index)
            worker = index if chosen is None else chosen
            cached = cached and verdict is not Verdict.PASSED_ON
        chosen_over = begins and index != at.row[0]
        return Decision(verdict, worker, service=service, begins_connection=begins, cached=cached, chosen=chosen_over)

    def _less_loaded(self, at: _Found) -> int:
        """Who gets a new connection; a SYN that comes again goes where it went before."""
        owner, other = at.row[0], self._row_at(at.half)[0]
        if other != owner and other in self._workers:
            known = self._recall(at)
            if known is not None and known.sequence == at.flow.sequence and known.worker in (owner, other):
                return known.worker
            owner = other if self._burdens.is_lighter(other, owner) else owner
        self._burdens.give(owner)
        return owner

    def _second_chance(
        self, packet: Packet, at: _Found, deliver: Verdict, worker: int | None
    ) -> tuple[Verdict, int | None]:
        """What the kernel said of a connection holds until the rows change, or it begins anew."""
        most = PASSES_OF_TWO_ROWS if at.service.choice else PASSES
        if packet.protocol != _TCP or packet.begins_connection or packet.hop > most:
            return deliver, worker
        owners = list_owners(at.row, self._row_at(at.half) if at.service.choice else None)
        previous = next_owner(owners, self._self, packet.sender, self._workers, packet.hop)
        if previous is None:
            return deliver, worker
        known = self._recall(at)
        if known is not None and known.epoch == self._epoch:
            if known.worker == self._self:
                return deliver, worker
            if known.worker == previous.index:
                return Verdict.PASSED_ON, previous.index
        self._asked = True
        if self._held(packet):
            self._flows[at.place] = at.flow
            return deliver, worker
        if known is None or known.worker != self._self:
            self._flows[at.place] = attrs.evolve(at.flow, worker=previous.index)
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
                    frame = _shorten_life(frame, packet, PASSES_OF_TWO_ROWS + 1 - packet.hop)
            target = worker.mac + self._mac
            return target + frame[12 : packet.layer3 - 2] + ethertype + frame[packet.layer3 :]
        if packet.hop >= 2 and not decision.verdict.drops and decision.verdict is not Verdict.PASSED_ELSEWHERE:
            return frame[: packet.layer3 - 2] + packet.ethertype.to_bytes(2, "big") + frame[packet.layer3 :]
        return b""


def _remember(store: dict[Key, Value], key: Key, value: Value, limit: int) -> None:
    """Keep the most recent ``limit``."""
    store.pop(key, None)
    store[key] = value
    if len(store) > limit:
        del store[next(iter(store))]


def _shorten_life(frame: bytes, packet: Packet, life: int) -> bytes:
    """A frame whose packet has no longer time to live than this; an IPv4 checksum is updated (RFC 1624)."""
    place = packet.layer3 + (8 if packet.ethertype == 0x0800 else 7)
    if frame[place] <= life:
        return frame
    shorter = frame[:place] + bytes((life,)) + frame[place + 1 :]
    if packet.ethertype != 0x0800:
        return shorter
    total = (~int.from_bytes(frame[place + 2 : place + 4], "big") & 0xFFFF) + (~(frame[place] << 8) & 0xFFFF)
    total += life << 8
    for _ in range(2):
        total = (total & 0xFFFF) + (total >> 16)
    return shorter[: place + 2] + (~total & 0xFFFF).to_bytes(2, "big") + shorter[place + 4 :]
