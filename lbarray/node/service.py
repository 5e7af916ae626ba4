"""The life of a node: its parts start in order, tell each other what happens, and stop in order."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import sys
from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lbarray.backends.service import BackendsService
from lbarray.config.load import ConfigFile
from lbarray.config.model import Config
from lbarray.config.routers import VirtualRouter, virtual_routers
from lbarray.errors import ArrayError, SystemRefused
from lbarray.extensions import stale
from lbarray.failover.handover import Handovers
from lbarray.failover.routes import RouteService
from lbarray.failover.service import FailoverService
from lbarray.failover.tracking import Condition
from lbarray.kernel.addresses import addresses_of, hold_on_loopback
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import link
from lbarray.membership.service import MembershipService
from lbarray.node.array_parts import (
    make_direct_return,
    make_failover,
    make_feedback,
    make_history,
    make_membership,
    make_prober,
    make_routes,
    make_scheduler,
)
from lbarray.node.backend_parts import make_backends
from lbarray.node.configuring import Configuring
from lbarray.node.draining import Draining
from lbarray.node.identity import journal_of
from lbarray.node.process_parts import make_processes, process_count
from lbarray.node.pushing import Pushing
from lbarray.node.reporting import Reporting
from lbarray.node.view import make_console, node_view
from lbarray.node.weighing import Weighing
from lbarray.node.worker_parts import make_rewriting, make_worker
from lbarray.rewrite.service import RewriteService
from lbarray.scheduler.feedback import FeedbackService
from lbarray.scheduler.history import HistoryService
from lbarray.scheduler.prober import ProbeService
from lbarray.scheduler.service import SchedulerService
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.events import RecentEvents
from lbarray.telemetry.lag import ReactorLag
from lbarray.values import Address, NodeReport, Role
from lbarray.worker.acceptance import AcceptanceCheck
from lbarray.worker.direct_return import DirectReturnService
from lbarray.worker.processes.parent import WorkerProcesses
from lbarray.worker.service import WorkerService

__all__ = ["NodeService"]

ACCEPTANCE_S = 0.5
#: Seconds of an orderly stop: until the other nodes' rows have moved, and for a successor beyond one interval.
DRAIN_S = 0.1
HAND_OVER_S = 0.2
PLANE = Condition("plane")
#: Seconds until routers around have learnt that a route is withdrawn.
ROUTES_KNOWN_S = 1.0


class NodeService(MultiService):
    """One node, or some of its roles.

    Starts its parts in order and, when one refuses, stops those that run, says why in one line and ends
    the process with code 1.

    :param roles: what this process does: scheduler, worker or both.
    :param file: where the configuration came from; without it nothing can be reloaded.
    """

    def __init__(self, *, reactor: Any, config: Config, name: str, roles: Role, file: ConfigFile | None = None) -> None:
        super().__init__()
        # As an attribute of the class it would be called after whoever inherits from this one.
        self.log = Logger("lbarray.node")
        self.config = config
        self.node_name = name
        self.counters = Counters()
        self.events = RecentEvents()
        self.draining = False
        self._stopping = False
        self.reactor = reactor
        self._roles = roles
        self._started_at = reactor.seconds()
        self.secret = config.array.key_file.read_bytes() if config.array.key_file else secrets.token_bytes(32)
        self.mac = b""
        self._parts: list[Service] = []
        self.backends: BackendsService | None = None
        self.worker: WorkerService | WorkerProcesses | None = None
        self.acceptance: AcceptanceCheck | None = None
        self.membership: MembershipService | None = None
        self.feedback: FeedbackService | None = None
        self.drainage: Draining
        self.direct_return: DirectReturnService | None = None
        self.scheduler: SchedulerService | None = None
        self.prober: ProbeService | None = None
        self.failover: FailoverService | None = None
        self.routes: RouteService | None = None
        self.handovers: Handovers | None = None
        self.weighing: Weighing | None = None
        self.history: HistoryService | None = None
        self.rewriting: RewriteService | None = None
        self.journal: Journal | None = None
        self.configuring = Configuring(self, file)
        self.reporting = Reporting(self)
        self._build()

    # Building

    def _build(self) -> None:
        """The parts, in the order in which they start."""
        config = self.config
        parts = self._parts
        if Role.WORKER in self._roles:
            self.backends = make_backends(
                reactor=self.reactor, config=config, secret=self.secret, counters=self.counters
            )
            self.rewriting = make_rewriting(reactor=self.reactor, config=config, counters=self.counters)
            self.worker = self._make_worker(self.backends, self.rewriting)
            parts += [self.backends, self.rewriting, self.worker]
        if not config.standalone:
            self.journal = journal_of(config, self.node_name)
            self._build_array(self.journal)
        self.pushing = Pushing(self)
        self.drainage = Draining(self)
        parts.append(self.drainage)
        self.view = node_view(self)
        self.lag = ReactorLag(self.reactor)
        self._parts = [*make_console(self, self.view), self.lag, *parts]

    def _make_worker(self, backends: BackendsService, rewriting: RewriteService) -> WorkerService | WorkerProcesses:
        """Serves here, or by processes of its own."""
        if process_count(self.config):
            return make_processes(
                reactor=self.reactor,
                config=self.config,
                node_name=self.node_name,
                secret=self.secret,
                backends=backends,
                rewriting=rewriting,
                counters=self.counters,
                changed=self._tell,
            )
        return make_worker(
            reactor=self.reactor,
            config=self.config,
            node_name=self.node_name,
            backends=backends,
            rewriting=rewriting,
            counters=self.counters,
        )

    def _build_array(self, journal: Journal) -> None:
        config = self.config
        if self.worker is not None:
            self.acceptance = AcceptanceCheck(
                clock=self.reactor,
                targets=self.places(config),
                interval_s=ACCEPTANCE_S,
                changed=lambda accepting: self._tell(),
            )
            self._parts.append(self.acceptance)
            self.direct_return = make_direct_return(
                reactor=self.reactor,
                config=lambda: self.config,
                node_name=self.node_name,
                journal=journal,
                changed=self._tell,
                counters=self.counters,
            )
            self._parts.append(self.direct_return)
        self.membership = make_membership(
            reactor=self.reactor,
            config=config,
            node_name=self.node_name,
            secrets=self._secrets(),
            report=self.reporting.report,
            counters=self.counters,
            alone_with_wrong_key=self._refuse,
        )
        self._parts.append(self.membership)
        self.weighing = Weighing(self, self.membership.requests, self._tell)
        if self.backends is not None:
            self.backends.share(self.membership.channel)
        if self.worker is not None:
            self.feedback = make_feedback(
                reactor=self.reactor,
                config=config,
                node_name=self.node_name,
                members=self.membership,
                weights=self.weighing.configured,
                measure=self.reporting.measure,
                taking=self.reporting.taking,
                changed=self._tell,
                counters=self.counters,
            )
            self._parts.append(self.feedback)
        # On a node that never owns a VIP too: it gives packets their second chance, and takes them out of tunnels.
        self.scheduler = make_scheduler(
            reactor=self.reactor,
            config=config,
            node_name=self.node_name,
            secret=self.secret,
            members=self.membership,
            journal=journal,
            counters=self.counters,
            able=self._plane_checked,
        )
        self.history = make_history(
            node_name=self.node_name,
            scheduler=self.scheduler,
            members=self.membership,
            changed=self._tell,
            counters=self.counters,
        )
        self._parts += [self.scheduler, self.history]
        if Role.SCHEDULER in self._roles:
            self.prober = make_prober(
                reactor=self.reactor,
                config=lambda: self.config,
                node_name=self.node_name,
                scheduler=self.scheduler,
                members=self.membership,
                changed=self._tell,
                counters=self.counters,
            )
            self._parts.append(self.prober)
            self.membership.subscribe(self._members_changed)
            if config.failover.mode == "bgp":
                self._build_routes(journal)
            else:
                self._build_failover(self.membership, journal)

    def _build_routes(self, journal: Journal) -> None:
        """Many schedulers: each announces what it can serve."""
        self.routes = make_routes(
            reactor=self.reactor, config=self.config, journal=journal, counters=self.counters, changed=self._tell
        )
        self._parts.append(self.routes)

    def _build_failover(self, membership: MembershipService, journal: Journal) -> None:
        """One scheduler for each VIP: the virtual router's owner."""
        config = self.config
        self.failover = make_failover(
            reactor=self.reactor,
            config=config,
            node_name=self.node_name,
            secrets=self._secrets(),
            members=membership,
            journal=journal,
            counters=self.counters,
            owned=self.own,
        )
        self.handovers = Handovers(
            clock=self.reactor,
            channel=membership.channel,
            failover=self.failover,
            node_name=self.node_name,
            nodes=list(config.array.nodes),
            members=membership.members,
        )
        self._parts.append(self.failover)

    @staticmethod
    def places(config: Config) -> list[tuple[str, int]]:
        """Where a worker listens, by address and port."""
        places = [config.service_id(name) for name in config.services]
        return [(str(place.address), place.port) for place in places]

    def _routers(self) -> tuple[VirtualRouter, ...]:
        return virtual_routers(self.config.array, self.config.failover)

    @property
    def interface(self) -> str:
        """Where this node meets the array."""
        return self.config.interface_of(self.config.array.nodes[self.node_name])

    def uptime_s(self) -> float:
        """Seconds since this process was built."""
        up: float = self.reactor.seconds() - self._started_at
        return up

    # What the parts tell each other

    def own(self, vips: frozenset[Address]) -> None:
        """For these VIPs this node is the scheduler now."""
        # While it stops, it goes on forwarding what neighbours still send here.
        if self.scheduler is not None and not (self._stopping and not vips >= self.scheduler.owned):
            self.scheduler.set_owned(vips)
        # Probes and heartbeats can wait for what has to be done now; their end cannot.
        if vips:
            self.reactor.callLater(0, self._owns)
        else:
            self._owns()

    def _owns(self) -> None:
        self._probe()
        self._tell()

    def _probe(self) -> None:
        if self.prober is not None and self.scheduler is not None:
            self.prober.set_active(bool(self.prober.running) and self.scheduler.active)

    def _secrets(self) -> list[bytes]:
        """The key to sign with, then those that are accepted too."""
        return [self.secret, *(path.read_bytes() for path in self.config.array.accepted_key_files)]

    def _plane_checked(self, fault: str) -> None:
        """A node that cannot forward must not own what is to be forwarded."""
        if self.journal is not None:
            with contextlib.suppress(SystemRefused):  # it is gone: others will say so
                self.mac = link(self.interface).mac
        for part in (self.failover, self.routes):
            if part is not None:
                part.report(PLANE, not fault, f"the packet plane does not forward: {fault}")

    def _members_changed(self, members: Sequence[NodeReport]) -> None:
        """An array without a worker that accepts is better led by a node that knows of one."""
        self.judge_workers(self.config.failover.no_worker_weight, members)

    def judge_workers(self, weight: int, members: Sequence[NodeReport] | None = None) -> None:
        """Whether any worker accepts bears on this node's priority, by so much."""
        if members is None:
            members = self.membership.members() if self.membership is not None else ()
        able = any(report.accepting and not report.draining for report in members)
        condition = Condition("workers", weight)
        for part in (self.failover, self.routes):
            if part is not None:
                part.report(condition, able, "no worker of the array accepts connections, as far as this node knows")

    def _tell(self) -> None:
        """Something that the other nodes should know at once."""
        if self.membership is not None and self.membership.running:
            self.membership.beat()

    def drain(self, draining: bool = True) -> None:
        """Take no new clients; those that are here stay until they leave."""
        self.draining = draining
        if self.routes is not None:
            self.routes.report(Condition("draining"), not draining, "this node drains")
        self._tell()

    # Life

    def _prepare(self) -> None:
        """What must be true of the machine before any part starts."""
        if self.journal is None:
            return
        self.journal.lock()
        for undone in self.journal.undo_all():
            self.log.info("undone, left by a node that was killed: {undone}", undone=str(undone))
        place = link(self.interface)
        self.mac = place.mac
        own = self.config.array.nodes[self.node_name]
        if own.address not in addresses_of(self.interface):
            raise SystemRefused(
                f"run as node {self.node_name}",
                detail=f"the interface {self.interface} does not have its address {own.address}",
                advice=f"compare array.nodes.{self.node_name} with: ip addr show {self.interface} (is --node right?)",
            )
        if self.worker is not None:
            hold_on_loopback([vip.ip for vip in self.config.array.vips], self.interface, self.journal)

    def startService(self) -> None:
        started: list[Service] = []
        self.events.start()
        for file in stale():
            self.log.warn("{file}", file=file)
        try:
            self._prepare()
            for part in self._parts:
                # One at a time, so that what is running is known when one refuses.
                part.startService()
                started.append(part)
        except ArrayError as error:
            for part in reversed(started):
                part.stopService()
            if started:
                self._undo()
            self.events.stop()
            self.log.critical("node {name} cannot start: {error}", name=self.node_name, error=error)
            raise SystemExit(1) from None
        self.running = 1
        if self.routes is not None:
            self.own(frozenset(vip.ip for vip in self.config.array.vips))
        self.log.info("node {name} of array {array} runs", name=self.node_name, array=self.config.array.name)

    def _refuse(self, error: SystemRefused) -> None:
        """A reason not to go on that shows only while running."""
        self.log.critical("node {name} cannot go on: {error}", name=self.node_name, error=error)
        # The reactor knows no exit code: ours is given when everything has been cleaned up.
        atexit.register(_exit_with_failure)
        self.reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Leave without breaking anything: new clients go elsewhere, then the VIPs, then the clients in hand end.

        While a successor takes over, our classifier goes on forwarding what neighbours still send to us.
        """
        self.running = 0
        stopped: Deferred[Any] = Deferred()
        leaving = self.failover or self.routes
        if leaving is not None and leaving.running:
            self._stopping = True
            self.drain(True)
            stopped.addCallback(lambda _: deferLater(self.reactor, DRAIN_S))
            stopped.addCallback(self._stop, leaving)
            known_s = max(router.interval_s for router in self._routers()) if self.failover else ROUTES_KNOWN_S
            hand_over_s = known_s + HAND_OVER_S
            stopped.addCallback(lambda _: deferLater(self.reactor, hand_over_s))
        for part in reversed(self._parts):
            if part is not leaving:
                stopped.addCallback(self._stop, part)
        stopped.addCallback(lambda _: self._undo())
        stopped.addCallback(lambda _: self.events.stop())
        stopped.callback(None)
        return stopped

    def _stop(self, _: object, part: Service) -> Deferred[Any]:
        return maybeDeferred(part.stopService).addErrback(self._stumbled)

    def _stumbled(self, failure: Any) -> None:
        self.log.failure("a part of the node did not stop in order", failure)

    def _undo(self) -> None:
        if self.journal is not None:
            try:
                self.journal.undo_all()
            except SystemRefused as error:
                self.log.critical("{error}; lbarray cleanup tries again", error=error)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
