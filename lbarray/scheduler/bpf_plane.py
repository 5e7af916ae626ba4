"""The forwarding plane in eBPF: as XDP in the driver, as generic XDP, or as a tc classifier."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IForwardingPlane
from lbarray.kernel.attachments import Classifier, Xdp
from lbarray.kernel.frames import VNET_HEADER, FrameSocket
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.libbpf import Map, MappedArray, ObjectFile, Program, possible_cpus
from lbarray.kernel.links import Link, link
from lbarray.kernel.ringbuffer import RingBuffer
from lbarray.scheduler.abi import (
    CONFIG,
    COST,
    FLOWS,
    FRONT,
    FRONTS,
    MAX_SERVICES,
    MAX_WORKERS,
    MEMORY,
    NEAR,
    NOBODY,
    ROW,
    SERVICE,
    SHARE,
    TALLY,
    TOO_BIG,
    U32,
    WORKER,
    Choice,
    Verdict,
    WorkerFlag,
    client_mask,
    mapped,
    pack_service_key,
    unmapped,
)
from lbarray.scheduler.choice import choices
from lbarray.scheduler.flow import numbered
from lbarray.scheduler.siphash import begun
from lbarray.scheduler.too_big import RateLimit, too_big_answer
from lbarray.values import Address, PlaneCounters, PlaneFlow, PlaneService, ServiceId, Share, WorkerCost, WorkerTarget

__all__ = ["MODES", "BpfPlane", "undoers"]

#: Places of the memory that are read at once: few enough that most are empty on a quiet node, and passed over.
_FLOWS_AT_ONCE = 512
#: How a program is attached, and the program's name in the object.
MODES = {"xdp": "schedule_xdp", "xdp-generic": "schedule_xdp", "tc": "schedule_tc"}


def _attachment(interface: str, mode: str) -> Xdp | Classifier:
    index = link(interface).index
    return Classifier(index, interface) if mode == "tc" else Xdp(index, interface, generic=mode == "xdp-generic")


def _detach(interface: str, mode: str = "tc") -> None:
    try:
        attachment = _attachment(interface, mode)
    except SystemRefused:  # an interface that is gone took its programs with it
        return
    attachment.detach()


def undoers() -> dict[str, Callable[..., None]]:
    """What takes away a program that a killed node left, for a :class:`Journal`."""
    return {"classifier": _detach, "packet-program": _detach}


@implementer(IForwardingPlane)
class BpfPlane:
    """Rewrites frames in the kernel.

    :param mode: one of :data:`MODES`.
    :param secret: of the flow hash, sixteen octets; every node of an array has the same.
    :param self_index: this node's worker index.
    :param address: this node's, where tunnels begin and end; without it there are none.
    :ivar mtu: octets that a packet may have on its way through tunnels; the interface's unless set.
    :param object_path: gives the compiled program, building it where it must.
    :param reactor: provides IReactorFDSet and IReactorTime; without it no client is told that its packets are too big.
    :ivar answered: how many were.
    """

    log = Logger()

    def __init__(
        self,
        *,
        interface: str,
        mode: str,
        table_size: int,
        secret: bytes,
        self_index: int,
        address: Address | None = None,
        journal: Journal,
        object_path: Callable[[], Path],
        reactor: Any = None,
    ) -> None:
        self.name = mode
        self.answered = 0
        self._reactor = reactor
        self._reports: RingBuffer | None = None
        self._wire: FrameSocket | None = None
        self._limit = RateLimit()
        self._interface = interface
        self._table_size = table_size
        self._begun = begun(secret)
        self._self = self_index
        self._address = address
        self.mtu: int | None = None
        self._journal = journal
        self._object_path = object_path
        self._undo = Undo("packet-program", (interface, mode))
        self._object: ObjectFile | None = None
        self._maps: dict[str, Map] = {}
        self._said: dict[str, dict[bytes, bytes]] = {}
        self._place: Link | None = None
        self._tables: list[MappedArray] = []
        self._attachment: Xdp | Classifier | None = None
        self._active: frozenset[Address] = frozenset()
        self._services: tuple[PlaneService, ...] = ()
        self._slots: dict[ServiceId, int] = {}
        self._numbers: dict[ServiceId, int] = {}
        self._last_number = 0
        self._choices: dict[ServiceId, Choice] = {}
        self._costs: frozenset[int] = frozenset()
        self._used: set[int] = set()
        self._epoch = 0
        self._flows: mmap.mmap | None = None
        self._workers: dict[int, WorkerTarget] = {}

    def attach(self) -> None:
        attached = False
        self._place = link(self._interface)
        self._object = ObjectFile(self._object_path())
        try:
            for program in set(MODES.values()) - {MODES[self.name]}:
                self._object.leave_out(program)
            self._tables = [MappedArray("rows", ROW.size, self._table_size) for _ in range(2)]
            self._object.use_inner("tables", self._tables[0])
            self._object.load()
            for number, table in enumerate(self._tables):
                table.write(ROW.pack(NOBODY, NOBODY, NOBODY, NOBODY) * self._table_size)
                self._map("tables").update(U32.pack(number), U32.pack(table.fd))
            self._write_config()
            attachment = _attachment(self._interface, self.name)
            # Recorded first: a program that nobody remembers would go on for ever.
            self._journal.record(self._undo)
            self._attachment = attachment
            attachment.attach(self.program)
            attached = True
            if self._reactor is not None:
                self._wire = FrameSocket(self._interface, receive=False)
                self._reports = RingBuffer(self._map("reports"), self._too_big)
                self._reactor.addReader(self._reports)
        except SystemRefused:
            # What was attached there before is not ours to take away.
            if self._attachment is not None and not attached:
                self._attachment = None
                self._journal.forget(self._undo)
            self.detach()
            raise

    @property
    def program(self) -> Program:
        """The packet program, loaded."""
        assert self._object is not None
        return self._object.program(MODES[self.name])

    def check(self) -> str:
        if self._attachment is None:
            return ""
        try:
            place = link(self._interface)
            if place != self._place:  # its MAC address or its MTU
                self._place = place
                self._write_config()
            found = self._attachment.found()
        except SystemRefused as error:
            return str(error)
        if found == self._attachment.number:
            return ""
        what = f"another program is in place of the packet program on {self._interface}"
        if not found:
            what = f"the packet program was taken away from {self._interface}"
        try:
            self._attachment.attach(self.program)
        except SystemRefused as error:  # no XDP program takes another one's place
            return f"{what}, and {error}"
        self.log.warn("{what}; it is back: who changes it?", what=what)
        return ""

    def detach(self) -> None:
        if self._attachment is not None:
            self._attachment.detach()
            self._attachment = None
            self._journal.forget(self._undo)
        if self._reports is not None:
            self._reactor.removeReader(self._reports)
            self._reports.close()
            self._reports = None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self._flows is not None:
            self._flows.close()
            self._flows = None
        if self._object is not None:
            self._object.close()
            self._object = None
            self._maps.clear()
            self._said.clear()
            self._used.clear()
            self._costs = frozenset()
        for table in self._tables:
            table.close()
        self._tables = []

    def _map(self, name: str) -> Map:
        if name not in self._maps:
            assert self._object is not None
            self._maps[name] = self._object.map(name)
        return self._maps[name]

    def _say(self, name: str, wanted: Mapping[bytes, bytes]) -> None:
        """Make a map of ours hold ``wanted``: only what differs is written, for a takeover waits for it."""
        held, said = self._map(name), self._said.setdefault(name, {})
        for key, value in wanted.items():
            if said.get(key) != value:
                held.update(key, value)
                said[key] = value
        for key in said.keys() - wanted.keys():
            held.delete(key)
            del said[key]

    def _write_config(self) -> None:
        assert self._place is not None
        index, mac, mtu = self._place.index, self._place.mac, self._place.mtu
        near = bytearray(8 * NEAR)
        near[8 * mac[5] : 8 * mac[5] + 8] = mac + b"\xff\xff"  # no peer's address, and something even on loopback
        for peer in _peers(self._workers):
            near[8 * peer[5] : 8 * peer[5] + 8] = peer
        own = mapped(self._address) if self._address is not None else bytes(16)
        tunnels = bool(_tunnel_peers(self._workers))
        rows = (self._table_size, self._self, tunnels)
        more = (self.mtu or mtu, self._epoch, self._fronts(), bytes(near))
        value = CONFIG.pack(*self._begun, mac, own, index, *rows, *more)
        self._say(".data.configs", {U32.pack(0): value})

    def set_active(self, vips: Collection[Address]) -> None:
        self._active = frozenset(vips)
        self.set_services(self._services)

    def set_services(self, services: Sequence[PlaneService]) -> None:
        slots = self._slots_for([service.id for service in services])
        self._numbers = numbered(services, self._numbers, self._last_number)
        self._last_number = max([self._last_number, *self._numbers.values()])
        self._choices = choices(services, self._choices)
        wanted = {pack_service_key(each.id): self._pack_service(each, slots[each.id]) for each in services}
        vips = {mapped(each.id.address): U32.pack(each.id.address in self._active) for each in services}
        self._say("services", wanted)
        self._say("vips", vips)
        self._services = tuple(services)
        self._slots = slots
        self._write_config()

    def _fronts(self) -> bytes:
        """The services of the first slots once more; a service keeps its place among them as long as its slot."""
        fronts = bytearray(FRONT.size * FRONTS)
        for each in self._services:
            slot = self._slots[each.id]
            if slot < FRONTS:
                key, plain = pack_service_key(each.id), each.id.address.version == 4
                service, end = self._pack_service(each, slot), key[-8:] if plain else b""
                FRONT.pack_into(fronts, slot * FRONT.size, key, service, end)
        return bytes(fronts)

    def _pack_service(self, service: PlaneService, slot: int) -> bytes:
        active = service.id.address in self._active
        number, choice = self._numbers[service.id], self._choices[service.id]
        return SERVICE.pack(service.hash_by, active, slot, choice, number, client_mask(service))

    def _slots_for(self, services: Sequence[ServiceId]) -> dict[ServiceId, int]:
        """A place among the shares for each service; a new one begins with nothing counted.

        :raises SystemRefused: there are more services than places.
        """
        slots = {service: self._slots[service] for service in services if service in self._slots}
        free = iter(sorted(set(range(MAX_SERVICES)) - set(slots.values())))
        for service in services:
            if service in slots:
                continue
            slot = next(free, None)
            if slot is None:
                raise SystemRefused("schedule the services", detail=f"more than {MAX_SERVICES} of them")
            slots[service] = slot
            if slot in self._used:
                nothing = bytes(SHARE.size * possible_cpus())
                for index in range(MAX_WORKERS):
                    self._map("shares").update(U32.pack(slot * MAX_WORKERS + index), nothing)
            self._used.add(slot)
        return slots

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        nobody = dict.fromkeys(self._said.get("workers", ()), bytes(WORKER.size))
        self._workers = {worker.index: worker for worker in workers}
        self._say("workers", nobody | {U32.pack(worker.index): _pack_worker(worker) for worker in workers})
        self._say("peers", _peers(self._workers))
        self._say("tunnel_peers", _tunnel_peers(self._workers))
        self._write_config()

    def apply(self, rows: bytes) -> None:
        if len(rows) != self._table_size * ROW.size:
            raise ValueError(f"{len(rows)} octets for a table of {self._table_size} rows")
        # One number changes, so a packet meets the old table or the new one. Putting a new table into the map of maps
        # would do as well, but the kernel then waits for all packets under way: 11 ms, in the turn of a takeover. And
        # what the kernel said of connections was said for the rows before.
        epoch = (self._epoch + 1) & 0xFFFF
        self._tables[epoch & 1].write(rows)
        self._epoch = epoch
        self._write_config()

    def set_costs(self, costs: Mapping[int, WorkerCost]) -> None:
        held = self._map("costs")
        for index, cost in costs.items():
            held.update(U32.pack(index), COST.pack(cost.open, cost.each, 0))
        for index in self._costs - costs.keys():
            held.update(U32.pack(index), bytes(COST.size))
        self._costs = frozenset(costs)

    def _too_big(self, report: bytes) -> None:
        """A client's packet does not fit into the tunnel to its worker."""
        fits, frame = TOO_BIG.unpack(report)
        assert self._place is not None and self._wire is not None
        answer = too_big_answer(frame, fits, self._place.mac)
        if answer and self._limit.take(self._reactor.seconds()):
            self.answered += self._wire.send([bytes(VNET_HEADER) + answer])

    def counters(self) -> PlaneCounters:
        packets: dict[str, int] = {}
        octets: dict[str, int] = {}
        for verdict in Verdict:
            name = verdict.name.lower()
            packets[name], octets[name] = self._tally(verdict)
        shares = {service: self._shares(slot) for service, slot in self._slots.items()}
        for workers in shares.values():
            for index, share in workers.items():
                local = index in self._workers and self._workers[index].local
                name = (Verdict.PASSED_LOCAL if local else Verdict.FORWARDED).name.lower()
                packets[name] += share.packets
                octets[name] += share.octets
        packets["answered_too_big"] = self.answered
        return PlaneCounters(packets, octets, shares)

    def _tally(self, verdict: int) -> tuple[int, int]:
        raw = self._map("verdicts").lookup(U32.pack(verdict), TALLY.size * possible_cpus()) or b""
        counted = list(TALLY.iter_unpack(raw))
        return sum(packets for packets, _ in counted), sum(octets for _, octets in counted)

    def _shares(self, slot: int) -> dict[int, Share]:
        shares: dict[int, Share] = {}
        for index in self._workers:
            key = U32.pack(slot * MAX_WORKERS + index)
            raw = self._map("shares").lookup(key, SHARE.size * possible_cpus()) or b""
            share = Share(*(sum(column) for column in zip(*SHARE.iter_unpack(raw), strict=True)))
            if share != Share():
                shares[index] = share
        return shares

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        if self._flows is None:
            self._flows = mmap.mmap(self._map("flows").fd, MEMORY.size * FLOWS, prot=mmap.PROT_READ)
        services = {number: service for service, number in self._numbers.items()}
        found: list[PlaneFlow] = []
        some = MEMORY.size * _FLOWS_AT_ONCE
        for at in range(0, MEMORY.size * FLOWS, some):
            octets = self._flows[at : at + some]
            if not octets.strip(b"\0"):
                continue
            for source, port, number, worker, _, _ in MEMORY.iter_unpack(octets):
                if number in services:
                    found.append(PlaneFlow(services[number], unmapped(source), int.from_bytes(port, "big"), worker))
            if len(found) >= limit:
                break
        return found[:limit]


def _pack_worker(worker: WorkerTarget) -> bytes:
    flags = WorkerFlag.LOCAL if worker.local else WorkerFlag(0)
    if worker.local or (len(worker.mac) == 6 and not worker.lost):
        flags |= WorkerFlag.KNOWN
    if worker.tunnel:
        flags |= WorkerFlag.GUE if worker.tunnel == "gue" else WorkerFlag.IPIP
    return WORKER.pack(worker.mac, flags, 0, mapped(worker.address))


def _peers(workers: Mapping[int, WorkerTarget]) -> dict[bytes, bytes]:
    """The map ``peers`` for these workers."""
    return {
        worker.mac + b"\0\0": U32.pack(worker.index)
        for worker in workers.values()
        if len(worker.mac) == 6 and not worker.local and not worker.tunnel
    }


def _tunnel_peers(workers: Mapping[int, WorkerTarget]) -> dict[bytes, bytes]:
    """The map ``tunnel_peers`` for these workers."""
    return {
        mapped(worker.address): U32.pack(worker.index)
        for worker in workers.values()
        if worker.tunnel and not worker.local
    }
