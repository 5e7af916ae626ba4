"""The forwarding plane in eBPF, as a tc classifier."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IForwardingPlane
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.libbpf import Classifier, Map, ObjectFile, Program, possible_cpus
from lbarray.kernel.links import link
from lbarray.scheduler.abi import (
    CONFIG,
    MAX_WORKERS,
    ROW,
    SERVICE,
    TALLY,
    U32,
    WORKER,
    Verdict,
    WorkerFlag,
    pack_service_key,
)
from lbarray.values import Address, PlaneCounters, PlaneService, WorkerTarget

__all__ = ["BpfPlane", "detach_classifier"]


def detach_classifier(interface: str) -> None:
    """Take away the classifier that a killed node left; nothing happens when there is none."""
    try:
        index = link(interface).index
    except SystemRefused:
        return
    Classifier(index, interface).detach()


@implementer(IForwardingPlane)
class BpfPlane:
    """Rewrites MAC addresses in the kernel.

    :param object_path: gives the compiled program, building it where it must.
    :param seed: of the flow hash; every node of an array has the same.
    """

    name = "bpf-tc"

    def __init__(
        self, *, interface: str, table_size: int, seed: int, journal: Journal, object_path: Callable[[], Path]
    ) -> None:
        self._interface = interface
        self._table_size = table_size
        self._seed = seed
        self._journal = journal
        self._object_path = object_path
        self._object: ObjectFile | None = None
        self._classifier: Classifier | None = None
        self._active: frozenset[Address] = frozenset()
        self._services: tuple[PlaneService, ...] = ()
        self._workers: set[int] = set()

    def attach(self) -> None:
        place = link(self._interface)
        self._object = ObjectFile(self._object_path())
        try:
            template = self._new_table()
            try:
                self._object.use_inner("tables", template)
                self._object.load()
            finally:
                template.close()
            self._write_config(place.index, place.mac)
            # Recorded first: a classifier that nobody remembers would go on for ever.
            self._journal.record(Undo("classifier", (self._interface,)))
            self._classifier = Classifier(place.index, self._interface)
            self._classifier.attach(self.program)
        except SystemRefused:
            self.detach()
            raise

    @property
    def program(self) -> Program:
        """The classifier, loaded."""
        assert self._object is not None
        return self._object.program("schedule")

    def detach(self) -> None:
        if self._classifier is not None:
            self._classifier.detach()
            self._classifier = None
            self._journal.undo(Undo("classifier", (self._interface,)))
        if self._object is not None:
            self._object.close()
            self._object = None

    def _map(self, name: str) -> Map:
        assert self._object is not None
        return self._object.map(name)

    def _write_config(self, index: int, mac: bytes) -> None:
        value = CONFIG.pack(index, self._table_size, self._seed, mac, 0)
        self._map("configs").update(U32.pack(0), value)

    def set_active(self, vips: Collection[Address]) -> None:
        self._active = frozenset(vips)
        self.set_services(self._services)

    def set_services(self, services: Sequence[PlaneService]) -> None:
        held = self._map("services")
        wanted = {
            pack_service_key(service.id): SERVICE.pack(service.hash_by, service.id.address in self._active)
            for service in services
        }
        for key, value in wanted.items():
            held.update(key, value)
        for key in {pack_service_key(service.id) for service in self._services} - set(wanted):
            held.delete(key)
        self._services = tuple(services)

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        held = self._map("workers")
        wanted = {worker.index: worker for worker in workers}
        for index, worker in wanted.items():
            flags = WorkerFlag.LOCAL if worker.local else WorkerFlag(0)
            if worker.local or len(worker.mac) == 6:
                flags |= WorkerFlag.KNOWN
            held.update(U32.pack(index), WORKER.pack(worker.mac.ljust(6, b"\0"), flags, 0))
        for index in self._workers - set(wanted):
            held.update(U32.pack(index), bytes(WORKER.size))
        self._workers = set(wanted)

    def apply(self, rows: bytes) -> None:
        if len(rows) != self._table_size * ROW.size:
            raise ValueError(f"{len(rows)} octets for a table of {self._table_size} rows")
        table = self._new_table()
        try:
            table.fill(rows, self._table_size)
            # One pointer is replaced, so a packet meets the old table or the new one.
            self._map("tables").update(U32.pack(0), U32.pack(table.fd))
        finally:
            table.close()  # the map that it is in holds it

    def _new_table(self) -> Map:
        return Map.create_array("rows", ROW.size, self._table_size)

    def counters(self) -> PlaneCounters:
        packets: dict[str, int] = {}
        octets: dict[str, int] = {}
        for verdict in Verdict:
            name = verdict.name.lower()
            packets[name], octets[name] = self._tally("verdicts", verdict)
        shares = {index: self._tally("shares", index) for index in sorted(self._workers) if index < MAX_WORKERS}
        return PlaneCounters(packets, octets, shares)

    def _tally(self, name: str, key: int) -> tuple[int, int]:
        raw = self._map(name).lookup(U32.pack(key), TALLY.size * possible_cpus()) or b""
        counted = list(TALLY.iter_unpack(raw))
        return sum(packets for packets, _ in counted), sum(octets for _, octets in counted)
