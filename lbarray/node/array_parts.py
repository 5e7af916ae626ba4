"""The parts that make machines into an array: heartbeats, packets, the VIPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lbarray.config.model import Config
from lbarray.config.routers import virtual_routers
from lbarray.errors import SystemRefused
from lbarray.failover.routes import RouteService
from lbarray.failover.service import FailoverService
from lbarray.kernel.addresses import addresses_of
from lbarray.kernel.direct_return import faults
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.listening import accept_queue
from lbarray.kernel.nexthop import next_hop
from lbarray.kernel.sysctls import write_sysctl
from lbarray.membership.datagram import DatagramCodec
from lbarray.membership.service import MembershipService
from lbarray.node.plane import make_plane
from lbarray.scheduler.feedback import FeedbackService
from lbarray.scheduler.history import HistoryService
from lbarray.scheduler.prober import ProbeService, ProbeWire
from lbarray.scheduler.reach import Reach
from lbarray.scheduler.service import SchedulerService
from lbarray.scheduler.table import RowTable
from lbarray.scheduler.weights import Share
from lbarray.telemetry.counters import Counters
from lbarray.values import Address, Load, NodeReport
from lbarray.worker.direct_return import DirectReturnService

__all__ = [
    "make_direct_return",
    "make_failover",
    "make_feedback",
    "make_history",
    "make_membership",
    "make_prober",
    "make_routes",
    "make_scheduler",
    "probing",
    "sharing_of_load",
]


def make_membership(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    secrets: Sequence[bytes],
    report: Callable[[], NodeReport],
    counters: Counters,
    alone_with_wrong_key: Callable[[SystemRefused], None],
) -> MembershipService:
    """Heartbeats to and from every other node."""
    nodes = config.array.nodes
    return MembershipService(
        reactor=reactor,
        name=node_name,
        bind=nodes[node_name].address,
        port=config.membership.port,
        peers={name: node.address for name, node in nodes.items() if name != node_name},
        codec=DatagramCodec(secret=secrets[0], array_name=config.array.name, accepted=secrets[1:]),
        interval_s=config.membership.interval,
        lost_after=config.membership.lost_after,
        report=report,
        counters=counters,
        key_hint=str(config.array.key_file),
        alone_with_wrong_key=alone_with_wrong_key,
    )


def make_feedback(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    members: MembershipService,
    weights: Callable[[], Mapping[str, int]],
    measure: Callable[[], Load],
    taking: Callable[[], bool],
    changed: Callable[[], None],
    counters: Counters,
) -> FeedbackService:
    """The share that this node takes of its weight, by its load."""
    sharing = sharing_of_load(config)
    ports = sharing.pop("ports")
    return FeedbackService(
        clock=reactor,
        share=Share(name=node_name, weights=weights, **sharing),
        members=members,
        measure=measure,
        queued=accept_queue,
        ports=ports,
        taking=taking,
        changed=changed,
        counters=counters,
    )


def sharing_of_load(config: Config) -> dict[str, Any]:
    """What of a configuration the shares follow: at the start, and by ``reconfigure`` while they run."""
    return {
        "feedback": config.scheduler.feedback,
        "slow_start_s": config.scheduler.slow_start,
        "ports": {service.port for service in config.services.values()},
    }


def make_scheduler(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    secret: bytes,
    members: MembershipService,
    journal: Journal,
    counters: Counters,
    able: Callable[[str], None],
) -> SchedulerService:
    """The table and the plane that holds it. ``able`` is told why the plane does not forward; empty while it does."""
    index = {name: place for place, name in enumerate(config.array.nodes)}
    table = RowTable(index, config.scheduler.table_size)
    plane = make_plane(reactor=reactor, config=config, node_name=node_name, secret=secret, journal=journal)
    return SchedulerService(
        clock=reactor,
        node_name=node_name,
        plane=plane,
        members=members,
        index=index,
        services=[config.plane_service(name) for name in config.services],
        table=table,
        reach=Reach(
            node_name=node_name,
            tunnels={name: node.tunnel for name, node in config.array.nodes.items()},
            look=next_hop,
        ),
        counters=counters,
        able=able,
        one_owner=config.failover.mode != "bgp",
    )


def make_history(
    *,
    node_name: str,
    scheduler: SchedulerService,
    members: MembershipService,
    changed: Callable[[], None],
    counters: Counters,
) -> HistoryService:
    """Who had the rows before this node came."""
    return HistoryService(
        node_name=node_name,
        members=members,
        requests=members.requests,
        rows=lambda: scheduler.table.rows,
        learn=scheduler.learn,
        meet=scheduler.meet,
        join=scheduler.join,
        met=scheduler.met,
        changed=changed,
        counters=counters,
    )


def make_prober(
    *,
    reactor: Any,
    config: Callable[[], Config],
    node_name: str,
    scheduler: SchedulerService,
    members: MembershipService,
    changed: Callable[[], None],
    counters: Counters,
) -> ProbeService:
    """Probes of the other workers while this node is scheduler."""
    own = config().array.nodes[node_name]
    interface = config().interface_of(own)
    return ProbeService(
        clock=reactor,
        node_name=node_name,
        addresses=lambda: _own_addresses(config(), node_name),
        members=members,
        **probing(config()),
        target_for=scheduler.target_for,
        # Those that have rows were proved by whoever was scheduler before.
        assumed=lambda: {worker.name for worker in scheduler.table.workers},
        changed=changed,
        open_wire=lambda addresses, heard: ProbeWire(
            reactor=reactor,
            interface=interface,
            addresses=addresses,
            tunnels_from=own.address,
            heard=heard,
        ),
        counters=counters,
    )


def probing(config: Config) -> dict[str, Any]:
    """What of a configuration the probes follow: at the start, and by ``reconfigure`` while they run."""
    return {
        "services": [config.service_id(name) for name in config.services],
        "interval_s": config.scheduler.probe_interval,
        "fall": config.scheduler.probe_fall,
        "rise": config.scheduler.probe_rise,
    }


def _own_addresses(config: Config, node_name: str) -> dict[int, Address]:
    """By version of IP: the node's own in the segment; what the configuration names comes first."""
    own = config.array.nodes[node_name]
    vips = {vip.ip for vip in config.array.vips}
    there = addresses_of(config.interface_of(own)) - vips
    # Of several, one that is not routed: answers come from the segment.
    ranked = sorted(there, key=lambda address: (not address.is_link_local, str(address)))
    found: dict[int, Address] = {address.version: address for address in reversed(ranked)}
    named = [address for address in (own.address, own.address6) if address is not None and address in there]
    found.update((address.version, address) for address in named)
    return found


def make_direct_return(
    *,
    reactor: Any,
    config: Callable[[], Config],
    node_name: str,
    journal: Journal,
    changed: Callable[[], None],
    counters: Counters,
) -> DirectReturnService:
    """Keeps this machine as a worker has to be. ``config`` is asked each time."""
    interface = config().interface_of(config().array.nodes[node_name])

    def write(name: str, value: str) -> None:
        before = write_sysctl(name, value)
        if not any(undo.kind == "sysctl" and undo.arguments[0] == name for undo in journal.pending()):
            journal.record(Undo("sysctl", (name, before)))

    return DirectReturnService(
        clock=reactor,
        look=lambda: faults([vip.ip for vip in config().array.vips], interface, write=write),
        changed=changed,
        counters=counters,
    )


def make_failover(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    secrets: Sequence[bytes],
    members: MembershipService,
    journal: Journal,
    counters: Counters,
    owned: Callable[[frozenset[Address]], None],
) -> FailoverService:
    """The virtual routers. ``owned`` is told for which VIPs this node is the scheduler."""
    names = {node.address: name for name, node in config.array.nodes.items()}

    def owner_lost(owner: Address, silent_s: float) -> None:
        # An owner that is dead is dead as a worker too, and its advertisements were denser than its heartbeats.
        if owner in names:
            members.suspect(names[owner], silent_s)

    own = config.array.nodes[node_name]
    failover = config.failover
    others = [node for name, node in config.array.nodes.items() if name != node_name]
    peers = [address for node in others for address in (node.address, node.address6) if address is not None]
    return FailoverService(
        reactor=reactor,
        node_name=node_name,
        array_name=config.array.name,
        interface=config.interface_of(own),
        address=own.address,
        address6=own.address6,
        routers=virtual_routers(config.array, failover),
        peers=peers if failover.unicast else [],
        min_ttl=failover.unicast_min_ttl if failover.unicast else 255,
        secrets=secrets if failover.authentication == "hmac" else [],
        services=[config.service_id(name) for name in config.services],
        members=lambda: [report.mac for report in members.members()],
        scripts=failover.scripts,
        refresh_s=failover.refresh,
        detect_duplicates=failover.detect_duplicates,
        # Goes on while the machine sleeps, and no clock daemon sets it.
        seconds=lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        counters=counters,
        journal=journal,
        owned=owned,
        owner_lost=owner_lost,
        # Who was parted from us shall know at once that we live: clients of its worker are about to come here.
        contested=members.beat,
    )


def make_routes(
    *, reactor: Any, config: Config, journal: Journal, counters: Counters, changed: Callable[[], None]
) -> RouteService:
    """The VIPs as routes that a daemon announces."""
    return RouteService(
        reactor=reactor,
        vips=[vip.ip for vip in config.array.vips],
        interface=config.bgp.interface,
        control=config.bgp.control,
        journal=journal,
        counters=counters,
        changed=changed,
    )
