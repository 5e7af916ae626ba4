"""The scheduler as a service of the node: membership in, rows out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.scheduler.choice import costs
from lbarray.scheduler.maglev import Weighted
from lbarray.scheduler.probe import able_workers
from lbarray.scheduler.reach import Reach
from lbarray.scheduler.table import RowTable
from lbarray.telemetry.counters import Counters
from lbarray.values import Address, NodeReport, PlaneFlow, PlaneService, WorkerTarget

__all__ = ["SchedulerService"]

#: Seconds for which membership changes are gathered after one: a whole array starting is few tables, not many. The
#: first of a burst, and a worker's end, are acted upon at once.
GATHER_S = 0.02
#: Seconds between two looks at whether the plane still does its work.
CHECK_S = 1.0
#: Seconds after which a silent node is taken out of the rows' history.
LOST_FOR_GOOD_S = 30.0
#: Seconds for which rows stay as they are while a VIP has two owners.
CONTESTED_S = 1.0
#: Seconds within which nodes that are heard again were apart from this one together, and have to hear it.
MEET_S = 5.0


class SchedulerService(Service):
    """Keeps the plane's rows equal to what the membership asks for, on every node, owner or not.

    :param index: the stable worker index of each node's name.
    :param plane: an :class:`lbarray.interfaces.IForwardingPlane`.
    :param members: an :class:`lbarray.interfaces.IMembershipSource`.
    :param able: told each second why the plane does not forward as it should; empty while it does.
    :param one_owner: a VIP has one, unless the array was parted.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        node_name: str,
        plane: Any,
        members: Any,
        index: Mapping[str, int],
        services: Sequence[PlaneService],
        table: RowTable,
        reach: Reach,
        counters: Counters,
        able: Callable[[str], None] = lambda fault: None,
        one_owner: bool = False,
    ) -> None:
        self.table = table
        self.owned: frozenset[Address] = frozenset()
        self._clock = clock
        self._node_name = node_name
        self._plane = plane
        self._members = members
        self._index = dict(index)
        self._services = tuple(services)
        self._counters = counters
        self._able = able
        self._refused = ""
        self._checks = LoopingCall(self._check)
        self._checks.clock = clock
        self._reach = reach
        self._looking: IDelayedCall | None = None
        self._gathering: IDelayedCall | None = None
        self._updated_at = 0.0
        self._targets: list[WorkerTarget] = []
        self._departed: dict[str, WorkerTarget] = {}
        self._lives: dict[str, int] = {}
        self._lost: dict[str, float] = {}
        self._apart: dict[str, NodeReport] = {}
        self._awaited: dict[str, float] = {}
        self._before: tuple[float, bytes] | None = None
        self._one_owner = one_owner
        self._contested_at: float | None = None
        self._unsubscribe: Callable[[], None] = lambda: None

    def startService(self) -> None:
        """:raises SystemRefused: the plane cannot be attached."""
        self._plane.attach()
        super().startService()
        self._plane.set_services(self._services)
        self._unsubscribe = self._members.subscribe(self._changed)
        self._update()
        self._checks.start(CHECK_S, now=False)
        self._looking = self._clock.callLater(self._reach.pause_s, self._look_again)

    def stopService(self) -> None:
        super().stopService()
        if self._checks.running:
            self._checks.stop()
        self._unsubscribe()
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._plane.detach()

    @property
    def active(self) -> bool:
        """Does it forward for any VIP?"""
        return bool(self.owned)

    def reconfigure(self, services: Sequence[PlaneService]) -> None:
        """Schedule the packets of these services.

        :raises SystemRefused: the plane said no; the previous set stands.
        """
        if self.running:
            self._plane.set_services(services)
        self._services = tuple(services)

    def set_owned(self, vips: frozenset[Address]) -> None:
        """These are the VIPs that this node schedules from now on. The rows are there already."""
        self.owned = vips
        if self.running:
            try:
                self._plane.set_active(vips)
                self._refused = ""
            except SystemRefused as error:
                self._refused = str(error)
                self._counters.add("plane_refused", "active")
                self.log.critical("{error}", error=error)

    def _check(self) -> None:
        if self._refused:  # perhaps it works by now
            self.set_owned(self.owned)
        self._able(self._refused or self._plane.check())
        if self._contested_at is not None or self._awaited:
            self._changed(())
        if any(service.least_loaded for service in self._services):
            self._tell_costs()

    def _tell_costs(self) -> None:
        """For a takeover on every node, owner or not."""
        try:
            self._plane.set_costs(costs(self.table.workers, self._members.members(), self._index))
        except SystemRefused as error:
            self._counters.add("plane_refused", "costs")
            self.log.error("{error}; loads of before decide on new connections", error=error)

    def target_for(self, report: NodeReport) -> WorkerTarget:
        """How packets get to a node of the configuration, as last looked up."""
        index = self._index[report.name]
        for target in self._targets:
            if target.index == index and target.mac and (target.tunnel or target.mac == report.mac):
                return target
        return self._reach.target(report, index)

    def _changed(self, members: Sequence[NodeReport]) -> None:
        now = self._clock.seconds()
        if self.table.generation and (now >= self._updated_at + GATHER_S or self._ended()):
            self._update()
        elif self._gathering is None:
            wait_s = self._updated_at + GATHER_S - now
            self._gathering = self._clock.callLater(wait_s if wait_s > 0 else GATHER_S, self._update)

    def _ended(self) -> bool:
        """Does a worker that has rows no longer take connections?"""
        able = {report.name for report in able_workers(self._members.members())}
        return bool(able) and not able.issuperset(worker.name for worker in self.table.workers)

    def _update(self) -> None:
        if self._gathering is not None and self._gathering.active():
            self._gathering.cancel()
        self._gathering = None
        self._updated_at = self._clock.seconds()
        members: Sequence[NodeReport] = [report for report in self._members.members() if report.name in self._index]
        targets = [self._reach.target(report, self._index[report.name]) for report in members]
        if self._looking is not None and self._looking.getTime() > self._updated_at + self._reach.pause_s:
            self._looking.reset(self._reach.pause_s)  # there is one more, perhaps not resolved
        wanted = _weighted(report for report in able_workers(members) if not self._is_awaited(report.name))
        try:
            # A row never names a worker that is not known: new ones come before it changes, old ones go after it.
            gone = [worker for worker in self._targets if worker.index not in {target.index for target in targets}]
            departed = self._departed_but(targets)
            self._plane.set_workers([*targets, *gone, *departed])
            self._targets = targets
            before = self.table.generation
            self._learn_history(members)
            rows = self.table.workers if self._contested(members) else wanted
            changed = self.table.update(rows, self._dead(members))
            if self.table.generation != before:
                self._plane.apply(self.table.rows)
            if gone:
                # What one that is silent still passes on is believed, or it would look like a client's packet.
                self._departed |= {worker.name: attrs.evolve(worker, lost=True) for worker in gone}
                self._plane.set_workers([*targets, *self._departed.values()])
        except SystemRefused as error:
            self._counters.add("plane_refused", "rows")
            self.log.critical("{error}; the packets go where they went before", error=error)
            return
        if not wanted:
            self._counters.add("scheduler_no_workers")
        elif changed:
            self._counters.add("scheduler_rows_changed", amount=changed)
            self.log.info(
                "rows: {changed} of {size} moved; workers now {workers}",
                changed=changed,
                size=self.table.size,
                workers=", ".join(worker.name for worker in self.table.workers),
            )

    def _contested(self, members: Sequence[NodeReport]) -> bool:
        """Does a VIP have two owners? Each knows only of its own part who is able, and rows would move back and forth:
        soon there is one."""
        owned = [vip for report in members for vip in report.owned]
        if not self._one_owner or len(owned) == len(set(owned)):
            self._contested_at = None
            return False
        now: float = self._clock.seconds()
        if self._contested_at is None:
            self._contested_at = now
        return now < self._contested_at + CONTESTED_S

    def _departed_but(self, targets: Sequence[WorkerTarget]) -> list[WorkerTarget]:
        """Nodes that were lost lately and have not come back."""
        back = {target.name for target in targets}
        self._departed = {
            name: worker for name, worker in self._departed.items() if name in self._lives and name not in back
        }
        return list(self._departed.values())

    def _look_again(self) -> None:
        """Ways change, and a router is not resolved before something has been sent to it."""
        if self._reach.look_again():
            self._changed(())
        self._looking = self._clock.callLater(self._reach.pause_s, self._look_again)

    def _learn_history(self, members: Sequence[NodeReport]) -> None:
        """What the others' rows were before this node joined: they hold the connections of the rows it now gets."""
        others = [report for report in members if report.accepting and report.name != self._node_name]
        if self.table.generation == 0:
            self.table.update(_weighted(others))
            self.table.update(_weighted(report for report in others if not report.draining))

    def learn(self, rows: bytes) -> None:
        """Another node's rows, with the history that this one has not seen (:meth:`RowTable.learn`).

        :raises ValueError: they are not those of this table.
        """
        if self.table.learn(rows):
            self._apply()

    def meet(self, came: Sequence[NodeReport]) -> None:
        """These have served apart from this node, and may hold connections in any row (:meth:`RowTable.suppose`).

        Their clients may come here before they have told more: an owner of the VIP may be one too many.
        """
        now = self._clock.seconds()
        if self._before is None or now > self._before[0] + MEET_S:
            self._before = now, self.table.rows
            self._apart.clear()
        self._awaited |= {report.name: now + MEET_S for report in came}
        self._apart |= {report.name: report for report in came if report.name in self._index}
        self._update()
        theirs = _weighted(report for report in self._apart.values() if not report.draining)
        if theirs and self.table.generation and self.table.suppose(theirs, self._before[1]):
            self._apply()

    def met(self, name: str) -> None:
        """One of them hears this node too: it has met us, and knows whose connections its rows may have."""
        if self._awaited.pop(name, None) is not None and self.running:
            self._changed(())

    def _is_awaited(self, name: str) -> bool:
        """It gets no rows yet: it would reset the connections that others have in them."""
        if self._clock.seconds() >= self._awaited.get(name, 0.0):
            self._awaited.pop(name, None)
        return name in self._awaited

    def join(self, rows: bytes) -> None:
        """The rows of one that was apart (:meth:`RowTable.join`).

        :raises ValueError: they are not those of this table.
        """
        self._before = None
        known = {report.name for report in self._members.members()} | self._lives.keys()
        if self.table.join(rows, self._index.keys() - known):
            self._apply()

    def _apply(self) -> None:
        """Nobody's rows have moved, but their history is another."""
        if self.running:
            try:
                self._plane.apply(self.table.rows)
            except SystemRefused as error:
                self._counters.add("plane_refused", "rows")
                self.log.critical("{error}; the packets go where they went before", error=error)

    def _dead(self, members: Sequence[NodeReport]) -> set[str]:
        """Nodes whose connections are gone: they have begun anew, or are lost for so long that they will not return.

        One that was only silent for a moment still holds its connections.
        """
        now = self._clock.seconds()
        present = {report.name: report.incarnation for report in members}
        dead = {name for name, life in self._lives.items() if present.get(name, life) != life}
        for name in self._lives:
            if name not in present and now - self._lost.setdefault(name, now) > LOST_FOR_GOOD_S:
                dead.add(name)
        for name in dead - set(present):
            del self._lives[name]
        self._lives.update(present)
        self._lost = {name: since for name, since in self._lost.items() if name in self._lives and name not in present}
        return dead

    @property
    def services(self) -> tuple[PlaneService, ...]:
        """What is scheduled."""
        return self._services

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        """Connections that the plane remembers, at most ``limit``."""
        return self._plane.flows(limit) if self.running else []

    def status(self) -> dict[str, object]:
        """What the console shows."""
        if not self.running:
            return {"plane": self._plane.name, "active": False}
        counted = self._plane.counters()
        names = {index: name for name, index in self._index.items()}
        shares = self.table.shares()
        return {
            "plane": self._plane.name,
            "active": self.active,
            "owned": sorted(str(vip) for vip in self.owned),
            "generation": self.table.generation,
            "rows": self.table.size,
            "verdicts": counted.packets,
            "workers": {
                name: {
                    "rows": shares.get(index, 0),
                    "packets": counted.per_worker.get(index, (0, 0))[0],
                    "octets": counted.per_worker.get(index, (0, 0))[1],
                }
                for index, name in sorted(names.items())
            },
            "services": {
                str(service.id): {
                    names[index]: attrs.asdict(share)
                    for index, share in sorted(counted.shares.get(service.id, {}).items())
                    if index in names
                }
                for service in self._services
            },
        }


def _weighted(reports: Iterable[NodeReport]) -> list[Weighted]:
    return [Weighted(report.name, max(1, report.weight * report.share)) for report in reports]
