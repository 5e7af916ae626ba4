"""Failover as a service of the node: its virtual routers, the sockets they share, and what the node knows of itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lbarray.config.failover import Script
from lbarray.config.routers import VirtualRouter
from lbarray.errors import SystemRefused
from lbarray.failover.announce import Claim
from lbarray.failover.authentication import Authenticator
from lbarray.failover.holding import AddressHolder, virtual_mac
from lbarray.failover.machine import State
from lbarray.failover.packet import Advertisement
from lbarray.failover.protocol import ClaimReader, VrrpWire
from lbarray.failover.router import RouterOnNode
from lbarray.failover.scripts import CheckScripts
from lbarray.failover.tracking import Condition
from lbarray.kernel.addresses import addresses_of
from lbarray.kernel.firewall import accept_only, remove_table
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import Link, link
from lbarray.kernel.linkwatch import LinkWatch
from lbarray.kernel.rawsocket import claims_socket, packet_socket, vrrp_socket
from lbarray.telemetry.counters import Counters
from lbarray.values import Address, ServiceId

__all__ = ["FIREWALL_TABLE", "FailoverService"]

CARRIER = Condition("carrier")
FIREWALL_TABLE = "lbarray_accept"


class FailoverService(Service):
    """The virtual routers (RFC 9568) of one node: their election, their addresses and their announcement.

    :param reactor: for time and file descriptors.
    :param address: this node's own address on ``interface``; :ivar address6: its IPv6 address, for unicast.
    :param peers: other nodes' addresses for unicast; none for multicast.
    :param secrets: keys to sign advertisements with (the first) and to accept; none means no authentication.
    :param services: what is let in where a router does not accept everything.
    :param members: MAC addresses of the array's nodes, as far as they are known.
    :param seconds: the machines' time, ``reactor.seconds`` unless given. A clock that nobody sets is better: Twisted's
        is the wall clock, and a step of it would pass for a process that stood still.
    :param owned: called with the addresses that this node forwards for, whenever they or :attr:`active` change. One
        that was given up is in it until neighbours have had the time to learn who has it.
    :param owner_lost: called when this node takes over from an owner that fell silent: its address, and for how many
        seconds at least.
    :param contested: called when there was another owner besides this node: nodes were parted.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        node_name: str,
        array_name: str,
        interface: str,
        address: Address,
        routers: Sequence[VirtualRouter],
        counters: Counters,
        journal: Journal,
        owned: Callable[[frozenset[Address]], None],
        owner_lost: Callable[[Address, float], None] = lambda owner, silent_s: None,
        contested: Callable[[], None] = lambda: None,
        address6: Address | None = None,
        peers: Sequence[Address] = (),
        min_ttl: int = 255,
        secrets: Sequence[bytes] = (),
        services: Iterable[ServiceId] = (),
        members: Callable[[], Iterable[bytes]] = tuple,
        scripts: Mapping[str, Script] | None = None,
        refresh_s: float = 60.0,
        detect_duplicates: bool = True,
        seconds: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.routers: dict[str, RouterOnNode] = {}
        self.owned: frozenset[Address] = frozenset()
        self._said_active: tuple[Address, ...] = ()
        self._specs = tuple(routers)
        self._reactor = reactor
        self._node_name = node_name
        self._array_name = array_name
        self._interface = interface
        self._address = address
        self._address6 = address6
        self._peers = tuple(peers)
        self._min_ttl = min_ttl
        self._secrets = tuple(secrets)
        self._services = tuple(services)
        self._members = members
        self._counters = counters
        self._journal = journal
        self._tell_owned = owned
        self._owner_lost = owner_lost
        self._contested = contested
        self._refresh_s = refresh_s
        self._detect_duplicates = detect_duplicates
        self._seconds = seconds or reactor.seconds
        self._wall_clock = wall_clock
        self._wires: dict[int, VrrpWire] = {}
        self._sources: dict[int, Address] = {}
        self._holding_back = False
        self._readers: list[ClaimReader] = []
        self._frames: socket.socket | None = None
        self._links = LinkWatch(reactor=reactor, interface=interface, changed=self._link_changed)
        self._scripts = CheckScripts(reactor=reactor, scripts=scripts or {}, report=self.report)
        self._stopped: Deferred[None] | None = None
        self._reported: dict[Condition, tuple[bool, str]] = {}

    # Life

    def startService(self) -> None:
        """:raises SystemRefused: the interface lacks our address, or sockets are not for us."""
        place = link(self._interface)
        self._frames = packet_socket(self._interface)
        try:
            self._open(place)
        except SystemRefused:
            self._close()
            raise
        super().startService()
        self._links.open()
        for router in self.routers.values():
            for condition, (good, why) in self._reported.items():
                router.report(condition, good, why)
            router.start()
        self._scripts.startService()

    def _open(self, place: Link) -> None:
        self._restrict()
        for version in sorted({spec.version for spec in self._specs} - self._wires.keys()):
            source = self._sources[version] = self._source(version)
            raw = vrrp_socket(self._interface, place.index, source)
            assert self._frames is not None
            wire = self._wires[version] = VrrpWire(
                reactor=self._reactor,
                raw=raw,
                frames=self._frames,
                source=source,
                scope=place.index,
                peers=[peer for peer in self._peers if peer.version == version],
                min_ttl=self._min_ttl,
                authenticator=self._authenticator(),
                wall_clock=self._wall_clock,
                counters=self._counters,
                heard=self._heard,
            )
            wire.open()
            if self._detect_duplicates:
                reader = ClaimReader(
                    reactor=self._reactor,
                    raw=claims_socket(self._interface, version),
                    counters=self._counters,
                    heard=self._claimed,
                )
                self._readers.append(reader)
                reader.open()
        for spec in self._specs:
            if spec.name not in self.routers:
                self.routers[spec.name] = self._router(spec)

    def reconfigure(
        self,
        *,
        routers: Sequence[VirtualRouter],
        services: Iterable[ServiceId],
        scripts: Mapping[str, Script],
        refresh_s: float,
    ) -> None:
        """Be these routers from now on. Those that stay keep their owners; an owner of what becomes another router
        owns that, too, without a new election.

        :raises SystemRefused: a socket or a packet filter is not to be had; what was there goes on.
        """
        before, refreshed_s = (self._specs, self._services), self._refresh_s
        self._specs, self._services, self._refresh_s = tuple(routers), tuple(services), refresh_s
        if not self.running:
            self._follow_scripts(scripts)
            return
        wanted = {spec.name: spec for spec in routers}
        stays = {name for name, router in self.routers.items() if _same_router(router.spec, wanted.get(name))}
        gone = {name: self.routers.pop(name) for name in list(self.routers) if name not in stays}
        known = set(self.routers)
        try:
            self._open(link(self._interface))
        except SystemRefused:
            for name in self.routers.keys() - known:
                del self.routers[name]
            self.routers.update(gone)
            self._specs, self._services = before
            self._refresh_s = refreshed_s
            raise
        self._holding_back = True
        had = {vip.ip for router in gone.values() if router.owns for vip in router.spec.vips}
        moved = {vip.ip for spec in routers for vip in spec.vips}
        for router in gone.values():
            # Others would take over what only has another number: they will hear of it in their own files.
            router.stop(farewell=moved.isdisjoint(vip.ip for vip in router.spec.vips))
        for name, router in self.routers.items():
            if name in known:
                if router.spec != wanted[name] or refresh_s != refreshed_s:
                    router.follow(wanted[name], self._node_name, refresh_s)
                continue
            for condition, (good, why) in self._reported.items():
                router.report(condition, good, why)
            router.start(owning=had.issuperset(vip.ip for vip in wanted[name].vips if not vip.ip.is_link_local))
        self._holding_back = False
        self._follow_scripts(scripts)
        self._changed()

    def _follow_scripts(self, scripts: Mapping[str, Script]) -> None:
        if scripts == self._scripts.scripts:
            return
        running = bool(self._scripts.running)
        if running:
            self._scripts.stopService()
        for name, script in self._scripts.scripts.items():
            if scripts.get(name) != script:
                condition = Condition(f"script {name}", script.weight)
                if not self._reported.pop(condition, (True, ""))[0]:
                    for router in self.routers.values():
                        router.report(condition, True)
        self._scripts = CheckScripts(reactor=self._reactor, scripts=scripts, report=self.report)
        if running:
            self._scripts.startService()

    def _source(self, version: int) -> Address:
        """Where our advertisements of one family come from: for IPv6 a link-local address (RFC 9568 §5.1.2.1)."""
        have = addresses_of(self._interface)
        wanted = self._address6 if version == 6 and self._peers else self._address
        if wanted is not None and wanted.version == version:
            if wanted in have:
                return wanted
            raise SystemRefused(
                f"run as the node with the address {wanted}",
                detail=f"the interface {self._interface} does not have it",
                advice=f"compare array.nodes with: ip addr show {self._interface} (or is --node wrong?)",
            )
        kind = IPv6Address if version == 6 else IPv4Address
        own = sorted(each for each in have if isinstance(each, kind) and (version == 4 or each.is_link_local))
        if not own:
            raise SystemRefused(
                f"advertise the IPv{version} VIPs",
                detail=f"the interface {self._interface} has no {'link-local ' if version == 6 else ''}"
                f"IPv{version} address",
                advice=f"see: ip addr show {self._interface}; sysctl net.ipv6.conf.{self._interface}.disable_ipv6",
            )
        first: Address = own[0]
        return first

    def _authenticator(self) -> Authenticator | None:
        if not self._secrets:
            return None
        return Authenticator(secrets=self._secrets, array_name=self._array_name, incarnation=time.time_ns())

    def _restrict(self) -> None:
        """Drop what no service wants, for the routers that do not accept everything (RFC 9568 §6.1, Accept_Mode)."""
        undo = Undo("firewall", (FIREWALL_TABLE,))
        closed = {vip.ip for spec in self._specs if not spec.accept for vip in spec.vips if not vip.ip.is_link_local}
        if closed:
            self._journal.record(undo)
            accept_only(
                FIREWALL_TABLE, sorted(closed, key=str), [each for each in self._services if each.address in closed]
            )
        elif undo in self._journal.pending():
            self._open_firewall(undo)

    def _router(self, spec: VirtualRouter) -> RouterOnNode:
        assert self._frames is not None
        wire = self._wires[spec.version]
        return RouterOnNode(
            reactor=self._reactor,
            spec=spec,
            node_name=self._node_name,
            source=self._sources[spec.version],
            holder=AddressHolder(
                interface=self._interface,
                vips=spec.vips,
                mac=virtual_mac(spec.version, spec.router_id) if spec.virtual_mac else None,
                router_id=spec.router_id,
                interval_s=spec.interval_s,
                journal=self._journal,
                counters=self._counters,
            ),
            send=wire.send,
            send_frame=self._frames.send,
            read_wire=wire.doRead,
            counters=self._counters,
            seconds=self._seconds,
            refresh_s=self._refresh_s,
            detect_duplicates=self._detect_duplicates,
            changed=self._changed,
            owner_lost=self._owner_lost,
            contested=self._contested,
        )

    def stopService(self) -> Deferred[None] | None:
        """Hand the addresses over, then close. The Deferred fires when other nodes have them, or none wants them."""
        super().stopService()
        if self._stopped is not None:
            return self._stopped
        self._scripts.stopService()
        for router in self.routers.values():
            router.step_down()
        if not self._leaving:
            self._close()
            return None
        self._stopped = Deferred()
        return self._stopped

    @property
    def _leaving(self) -> bool:
        return any(router.machine.leaving for router in self.routers.values())

    def _close(self) -> None:
        for router in self.routers.values():
            router.stop()
        self._links.close()
        for wire in self._wires.values():
            wire.close()
        for reader in self._readers:
            reader.close()
        if self._frames is not None:
            self._frames.close()
        undo = Undo("firewall", (FIREWALL_TABLE,))
        if undo in self._journal.pending():
            self._open_firewall(undo)

    def _open_firewall(self, undo: Undo) -> None:
        remove_table(FIREWALL_TABLE)
        self._journal.undo(undo)

    # What operators and the node say

    def step_down(self, vip: Address | None = None) -> list[str]:
        """Begin to hand over the addresses (of the router of ``vip``); the names of the routers that do.

        They stay here until another node has them; for good when nobody takes them.
        """
        return [router.spec.name for router in self.routers_of(vip) if router.step_down()]

    def take_over(self, vip: Address | None = None) -> list[str]:
        """Take the addresses (of the router of ``vip``) from their living owner; the names of the routers that did."""
        return [router.spec.name for router in self.routers_of(vip) if router.take_over()]

    def routers_of(self, vip: Address | None) -> list[RouterOnNode]:
        """The router that has ``vip``, if there is one; all routers without a ``vip``."""
        return [router for router in self.routers.values() if vip is None or router.has(vip)]

    @property
    def active(self) -> tuple[Address, ...]:
        """The addresses that this node owns now: what it says to the others."""
        return tuple(
            vip.ip
            for router in self.routers.values()
            if router.machine.state is State.ACTIVE
            for vip in router.spec.vips
        )

    def report(self, condition: Condition, good: bool, why: str = "") -> None:
        """Something about this node that every router's priority depends on is so, or ``why`` it is not."""
        self._reported[condition] = (good, why)
        for router in self.routers.values():
            router.report(condition, good, why)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "owned": sorted(str(address) for address in self.owned),
            "routers": {name: router.status() for name, router in self.routers.items()},
        }

    # What the segment says

    def _heard(self, said: Advertisement, source: Address) -> None:
        for router in self.routers.values():
            if router.spec.router_id == said.router_id and router.spec.version == source.version:
                router.heard(said, source)
                return
        self._counters.add("vrrp_refused", "other_router")

    def _claimed(self, claim: Claim) -> None:
        for router in self.routers.values():
            if router.has(claim.address):
                router.claimed(claim, self._members())

    def _link_changed(self, now: Link | None) -> None:
        if now is None:
            self.report(CARRIER, False, f"the interface {self._interface} is gone")
        else:
            for router in self.routers.values():
                router.moved(now.mac)
            self.report(CARRIER, now.carrier, f"{self._interface} has no carrier (ip link show {self._interface})")

    def _changed(self) -> None:
        if self._holding_back:  # several changes that are one
            return
        owned = frozenset(vip.ip for router in self.routers.values() if router.forwards for vip in router.spec.vips)
        if (owned, self.active) != (self.owned, self._said_active):
            self.owned, self._said_active = owned, self.active
            self._tell_owned(owned)
        if self._stopped is not None and not self._leaving:
            # Emptied first: closing changes what is owned, too.
            stopped, self._stopped = self._stopped, None
            self._close()
            stopped.callback(None)


def _same_router(old: VirtualRouter, new: VirtualRouter | None) -> bool:
    """It goes on as the same one: number, family and MAC address are what others know it by."""
    return new is not None and (old.version, old.router_id, old.virtual_mac) == (
        new.version,
        new.router_id,
        new.virtual_mac,
    )
