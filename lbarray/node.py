"""Builds the services of one node from a configuration. The only place that knows every part."""

from __future__ import annotations

import atexit
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from ipaddress import IPv4Address
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from lbarray.backends.connections import IdleConnections
from lbarray.backends.health import Health
from lbarray.backends.persistence import CookiePersistence
from lbarray.backends.policies import POLICIES
from lbarray.backends.pool import Member, Pool
from lbarray.backends.probes import HttpProbe, TcpProbe
from lbarray.backends.routes import Route, RouteTable
from lbarray.backends.service import BackendsService, Watch
from lbarray.bpf.build import object_path
from lbarray.config import pools as pool_config
from lbarray.config.model import Config
from lbarray.config.problems import nearest
from lbarray.console.api import StatusService
from lbarray.console.manhole import ManholeService
from lbarray.console.view import NodeView
from lbarray.errors import ArrayError, BadConfig, Problem, SystemRefused
from lbarray.failover.service import FailoverService
from lbarray.http.limits import Limits
from lbarray.kernel.addresses import addresses_of, hold_on_loopback
from lbarray.kernel.addresses import undoers as address_undoers
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import link
from lbarray.kernel.processors import ProcessorUse
from lbarray.membership.heartbeat import HeartbeatCodec
from lbarray.membership.service import MembershipService
from lbarray.rewrite.chain import RewriteFilter
from lbarray.rewrite.rules import CdnRules
from lbarray.scheduler.bpf_plane import BpfPlane, detach_classifier
from lbarray.scheduler.service import SchedulerService
from lbarray.scheduler.table import RowTable
from lbarray.telemetry.counters import Counters
from lbarray.values import BackendAddress, Load, NodeReport, PlaneService, Role
from lbarray.worker.acceptance import AcceptanceCheck
from lbarray.worker.service import ListenerSpec, TlsFiles, WorkerService

__all__ = ["NodeService", "journal_of", "node_name"]

ACCEPTANCE_S = 0.5
#: Seconds of an orderly stop: until the other nodes' rows have moved, and for a successor beyond one interval.
DRAIN_S = 0.1
HAND_OVER_S = 0.2


def node_name(config: Config, name: str | None, source: str) -> str:
    """Which node of the configuration this machine is.

    :raises BadConfig: it must be said and was not, or there is none of that name.
    """
    if config.standalone:
        return name or config.array.name
    if name is None:
        names = ", ".join(config.array.nodes)
        raise BadConfig([Problem("--node", "nothing", f"which node of the array this machine is: {names}")], source)
    if name not in config.array.nodes:
        raise BadConfig([Problem("--node", f'"{name}"', nearest(name, config.array.nodes))], source)
    return name


def journal_of(config: Config, name: str) -> Journal:
    """What the node of this name changed on its machine, and how each kind of change is undone.

    :raises SystemRefused: the file is there and of no use.
    """
    undoers = {**address_undoers(), "classifier": detach_classifier}
    return Journal(config.array.state_dir / f"journal-{name}.json", undoers)


def _version() -> str:
    try:
        return version("lbarray")
    except PackageNotFoundError:
        return "unknown"


class NodeService(MultiService):
    """One node, or some of its roles.

    Starts its parts in order and, when one refuses, stops those that run, says why in one line and ends
    the process with code 1.

    :param roles: what this process does: scheduler, worker or both.
    """

    log = Logger()

    def __init__(self, *, reactor: Any, config: Config, name: str, roles: Role) -> None:
        super().__init__()
        self.config = config
        self.node_name = name
        self.counters = Counters()
        self.draining = False
        self._stopping = False
        self._reactor = reactor
        self._roles = roles
        self._started_at = reactor.seconds()
        self._processors = ProcessorUse()
        self._secret = config.array.key_file.read_bytes() if config.array.key_file else secrets.token_bytes(32)
        self._incarnation = time.time_ns()
        self._mac = b""
        self._parts: list[Service] = []
        self.backends: BackendsService | None = None
        self.worker: WorkerService | None = None
        self.acceptance: AcceptanceCheck | None = None
        self.membership: MembershipService | None = None
        self.scheduler: SchedulerService | None = None
        self.failover: FailoverService | None = None
        self.rewriting: RewriteFilter | None = None
        self._journal: Journal | None = None
        self._build()

    # Building

    def _build(self) -> None:
        """The parts, in the order in which they start."""
        config = self.config
        parts = self._parts
        if not config.standalone:
            self._journal = journal_of(config, self.node_name)
        if Role.WORKER in self._roles:
            self.backends = self._backends()
            self.worker = self._worker(self.backends)
            parts += [self.backends, self.worker]
        if not config.standalone:
            self._build_array(self._journal)
        view = self._view()
        status = config.console.status
        parts.insert(0, StatusService(reactor=self._reactor, host=status.host, port=status.port, view=view))
        manhole = config.console.manhole
        if manhole is not None:
            parts.append(
                ManholeService(
                    reactor=self._reactor,
                    host=manhole.listen.host,
                    port=manhole.listen.port,
                    user=manhole.user,
                    authorized_keys=manhole.authorized_keys,
                    password_file=manhole.password_file,
                    state_dir=config.array.state_dir,
                    view=view,
                )
            )

    def _build_array(self, journal: Journal | None) -> None:
        assert journal is not None
        if self.worker is not None:
            self.acceptance = AcceptanceCheck(
                clock=self._reactor,
                targets=[
                    (str(self.config.service_id(name).address), self.config.service_id(name).port)
                    for name in self.config.services
                ],
                interval_s=ACCEPTANCE_S,
                changed=lambda accepting: self._tell(),
            )
            self._parts.append(self.acceptance)
        self.membership = self._membership()
        self._parts.append(self.membership)
        if Role.SCHEDULER in self._roles:
            self.scheduler = self._scheduler(self.membership, journal)
            self.failover = self._failover(self.scheduler, journal)
            self._parts += [self.scheduler, self.failover]

    def _backends(self) -> BackendsService:
        config = self.config
        pools = [self._pool(name, pool) for name, pool in config.pools.items()]
        routes = [
            Route(pool=route.pool, host=route.host, path=route.path, services=route.services) for route in config.routes
        ] or [Route(pool=pools[0].name)]
        return BackendsService(
            reactor=self._reactor,
            pools=pools,
            routes={config.service_id(name): RouteTable(routes, name) for name in config.services},
            watches={name: self._watch(pool.check) for name, pool in config.pools.items() if pool.check is not None},
            counters=self.counters,
        )

    def _pool(self, name: str, pool: pool_config.Pool) -> Pool:
        rise, fall = (pool.check.rise, pool.check.fall) if pool.check else (1, 1)
        members = [
            Member(
                address=BackendAddress(name, backend_name, backend.address.host, backend.address.port),
                weight=backend.weight,
                health=Health(rise=rise, fall=fall, now=self._reactor.seconds()),
                idle=IdleConnections(max_idle=pool.max_idle, idle_timeout_s=pool.idle_timeout),
            )
            for backend_name, backend in pool.backends.items()
        ]
        persistence = None
        if pool.persistence is not None:
            persistence = CookiePersistence(
                cookie=pool.persistence.cookie,
                secret=self._secret,
                same_site=pool.persistence.same_site,
                strip=pool.persistence.strip,
            )
        return Pool(name=name, members=members, policy=POLICIES[pool.policy](), persistence=persistence)

    def _watch(self, check: pool_config.Check) -> Watch:
        probe: TcpProbe | HttpProbe
        if check.kind == "tcp":
            probe = TcpProbe(reactor=self._reactor, timeout_s=check.timeout)
        else:
            probe = HttpProbe(
                reactor=self._reactor,
                timeout_s=check.timeout,
                path=check.path,
                host=check.host,
                expect=check.expect,
            )
        return Watch(probe=probe, interval_s=check.interval)

    def _worker(self, backends: BackendsService) -> WorkerService:
        config = self.config
        worker = config.worker
        if config.cdn is not None:
            cdn = config.cdn
            rules = CdnRules(
                host=cdn.host,
                scheme=cdn.scheme,
                paths=cdn.paths,
                own_hosts=cdn.own_hosts,
                attributes=cdn.attributes,
                add_crossorigin=cdn.add_crossorigin,
            )
            self.rewriting = RewriteFilter(rules=rules, counters=self.counters)
        return WorkerService(
            reactor=self._reactor,
            listeners=[
                ListenerSpec(
                    name=name,
                    service_id=config.service_id(name),
                    tls=TlsFiles(service.tls.certificate, service.tls.key) if service.tls else None,
                )
                for name, service in config.services.items()
            ],
            requests=backends,
            filters=[self.rewriting] if self.rewriting else [],
            limits=Limits(
                max_head=worker.max_head,
                max_body=worker.max_body,
                header_timeout_s=worker.header_timeout,
                keepalive_timeout_s=worker.keepalive_timeout,
                connect_timeout_s=worker.connect_timeout,
                response_timeout_s=worker.response_timeout,
            ),
            counters=self.counters,
            node_name=self.node_name if worker.expose else "",
            stop_grace_s=worker.stop_grace,
        )

    def _membership(self) -> MembershipService:
        config = self.config
        nodes = config.array.nodes
        return MembershipService(
            reactor=self._reactor,
            name=self.node_name,
            bind=nodes[self.node_name].address,
            port=config.membership.port,
            peers={name: node.address for name, node in nodes.items() if name != self.node_name},
            codec=HeartbeatCodec(secret=self._secret, array_name=config.array.name),
            interval_s=config.membership.interval,
            lost_after=config.membership.lost_after,
            report=self._report,
            counters=self.counters,
            key_hint=str(config.array.key_file),
            alone_with_wrong_key=self._refuse,
        )

    def _scheduler(self, membership: MembershipService, journal: Journal) -> SchedulerService:
        config = self.config
        index = {name: place for place, name in enumerate(config.array.nodes)}
        table = RowTable(index)
        seed = int.from_bytes(hashlib.sha256(b"lbarray flows " + self._secret.strip()).digest()[:4], "big")
        plane = BpfPlane(
            interface=self._interface,
            table_size=table.size,
            seed=seed,
            journal=journal,
            object_path=object_path,
        )
        return SchedulerService(
            clock=self._reactor,
            node_name=self.node_name,
            plane=plane,
            members=membership,
            index=index,
            services=[PlaneService(config.service_id(name), config.hash_by(name)) for name in config.services],
            table=table,
            counters=self.counters,
        )

    def _failover(self, scheduler: SchedulerService, journal: Journal) -> FailoverService:
        config = self.config
        own = config.array.nodes[self.node_name]
        others = [node.address for name, node in config.array.nodes.items() if name != self.node_name]
        assert isinstance(own.address, IPv4Address)
        return FailoverService(
            reactor=self._reactor,
            interface=self._interface,
            address=own.address,
            vips=config.array.vips,
            router_id=config.failover.virtual_router_id,
            priority=own.priority,
            interval_s=config.failover.interval,
            preempt=config.failover.preempt,
            preempt_delay_s=config.failover.preempt_delay or 0.0,
            # Goes on while the machine sleeps, and no clock daemon sets it.
            seconds=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
            peers=[peer for peer in others if isinstance(peer, IPv4Address)] if config.failover.unicast else [],
            counters=self.counters,
            journal=journal,
            became_active=lambda: self._own(True),
            became_backup=lambda: self._own(False),
        )

    @property
    def _interface(self) -> str:
        return self.config.interface_of(self.config.array.nodes[self.node_name])

    # What the parts tell each other

    def _own(self, owner: bool) -> None:
        """The VIPs are ours, or no longer are."""
        if self.scheduler is not None and not self._stopping:
            self.scheduler.set_active(owner)
        self._tell()

    def _tell(self) -> None:
        """Something that the other nodes should know at once."""
        if self.membership is not None and self.membership.running:
            self.membership.beat()

    def _report(self) -> NodeReport:
        own = self.config.array.nodes[self.node_name]
        roles = Role.NONE
        if self.scheduler is not None and self.scheduler.active:
            roles |= Role.SCHEDULER
        load = Load()
        if self.worker is not None:
            roles |= Role.WORKER
            load = self.worker.load()
            load = Load(load.connections, load.requests_per_s, self._processors.since_last())
        return NodeReport(
            name=self.node_name,
            address=own.address,
            mac=self._mac,
            roles=roles,
            load=load,
            accepting=self.acceptance is not None and self.acceptance.accepting,
            draining=self.draining,
            weight=own.weight,
            incarnation=self._incarnation,
        )

    def drain(self, draining: bool = True) -> None:
        """Take no new clients; those that are here stay until they leave."""
        self.draining = draining
        self._tell()

    def _view(self) -> NodeView:
        parts: dict[str, Callable[[], object]] = {}
        for key, part in (
            ("failover", self.failover),
            ("scheduler", self.scheduler),
            ("membership", self.membership),
            ("services", self.worker),
            ("pools", self.backends),
            ("rewriting", self.rewriting),
        ):
            if part is not None:
                parts[key] = part.status
        return NodeView(
            node=self.node_name,
            array=self.config.array.name,
            version=_version(),
            uptime_s=lambda: self._reactor.seconds() - self._started_at,
            counters=self.counters,
            parts=parts,
            drain=self._drain_backend,
            step_down=lambda: self.failover is not None and self.failover.step_down(),
            drain_node=self.drain,
        )

    def _drain_backend(self, pool: str, name: str, draining: bool) -> None:
        if self.backends is not None:
            self.backends.drain(pool, name, draining)

    # Life

    def _prepare(self) -> None:
        """What must be true of the machine before any part starts."""
        if self._journal is None:
            return
        self._journal.lock()
        for undone in self._journal.undo_all():
            self.log.info("undone, left by a node that was killed: {undone}", undone=str(undone))
        place = link(self._interface)
        self._mac = place.mac
        own = self.config.array.nodes[self.node_name]
        if own.address not in addresses_of(self._interface):
            raise SystemRefused(
                f"run as node {self.node_name}",
                detail=f"the interface {self._interface} does not have its address {own.address}",
                advice=f"compare array.nodes.{self.node_name} with: ip addr show {self._interface} (is --node right?)",
            )
        if self.worker is not None:
            hold_on_loopback([vip.ip for vip in self.config.array.vips], self._interface, self._journal)

    def startService(self) -> None:
        started: list[Service] = []
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
            self.log.critical("node {name} cannot start: {error}", name=self.node_name, error=error)
            raise SystemExit(1) from None
        self.running = 1
        self.log.info("node {name} of array {array} runs", name=self.node_name, array=self.config.array.name)

    def _refuse(self, error: SystemRefused) -> None:
        """A reason not to go on that shows only while running."""
        self.log.critical("node {name} cannot go on: {error}", name=self.node_name, error=error)
        # The reactor knows no exit code: ours is given when everything has been cleaned up.
        atexit.register(_exit_with_failure)
        self._reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Leave without breaking anything: new clients go elsewhere, then the VIPs, then the clients in hand end.

        While a successor takes over, our classifier goes on forwarding what neighbours still send to us.
        """
        self.running = 0
        stopped: Deferred[Any] = Deferred()
        if self.failover is not None and self.failover.running:
            self._stopping = True
            self.drain(True)
            stopped.addCallback(lambda _: deferLater(self._reactor, DRAIN_S))
            stopped.addCallback(self._stop, self.failover)
            hand_over_s = self.config.failover.interval + HAND_OVER_S
            stopped.addCallback(lambda _: deferLater(self._reactor, hand_over_s))
        for part in reversed(self._parts):
            if part is not self.failover:
                stopped.addCallback(self._stop, part)
        stopped.addCallback(lambda _: self._undo())
        stopped.callback(None)
        return stopped

    def _stop(self, _: object, part: Service) -> Deferred[Any]:
        return maybeDeferred(part.stopService).addErrback(self._stumbled)

    def _stumbled(self, failure: Any) -> None:
        self.log.failure("a part of the node did not stop in order", failure)

    def _undo(self) -> None:
        if self._journal is not None:
            try:
                self._journal.undo_all()
            except SystemRefused as error:
                self.log.critical("{error}; lbarray cleanup tries again", error=error)


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
