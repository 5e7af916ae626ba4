"""Failover as a service of the node: performs what the machine decides."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.failover.announce import REPEATS_S, announcement
from lbarray.failover.machine import (
    Advertise,
    Announce,
    Effect,
    Machine,
    NobodyTook,
    ReleaseAddresses,
    State,
    TakeAddresses,
    WasFrozen,
)
from lbarray.failover.packet import Advertisement
from lbarray.failover.protocol import VrrpWire
from lbarray.kernel.addresses import add_address, addresses_of, remove_address
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import Link, link
from lbarray.kernel.rawsocket import packet_socket, vrrp_socket
from lbarray.telemetry.counters import Counters

__all__ = ["FailoverService"]

#: Seconds between two renewals of the addresses' lifetimes.
RENEW_S = 1.0
#: Seconds between two announcements of an owner that nothing happens to: caches forget, switches restart.
REFRESH_S = 60.0
#: Seconds that we go on forwarding after a successor was heard: until every neighbour has learnt of it.
LINGER_S = 0.5


class FailoverService(Service):
    """One virtual router (RFC 9568): its election, its addresses and their announcement.

    :param reactor: for time and file descriptors.
    :param address: this node's own address on ``interface``.
    :param vips: the virtual addresses, with their prefix lengths.
    :param peers: other nodes' addresses for unicast; none for multicast.
    :param preempt_delay_s: how long an owner of lower priority is left alone.
    :param seconds: the machine's time, ``reactor.seconds`` unless given. A clock that nobody sets is better: Twisted's
        is the wall clock, and a step of it would pass for a process that stood still.
    :param became_active: called once the addresses are ours; ``became_backup`` once they no longer are, and
        neighbours have had the time to learn who has them.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        interface: str,
        address: IPv4Address,
        vips: Sequence[IPv4Interface | IPv6Interface],
        router_id: int,
        priority: int,
        interval_s: float,
        preempt: bool,
        peers: Sequence[IPv4Address],
        counters: Counters,
        journal: Journal,
        became_active: Callable[[], None],
        became_backup: Callable[[], None],
        preempt_delay_s: float = 0.0,
        seconds: Callable[[], float] | None = None,
    ) -> None:
        self.machine = Machine(
            router_id=router_id,
            priority=priority,
            interval_s=interval_s,
            source=address,
            preempt=preempt,
            preempt_delay_s=preempt_delay_s,
        )
        self.transitions = 0
        self._reactor = reactor
        self._seconds = seconds or reactor.seconds
        self.since = self._seconds()
        self._interface = interface
        self._address = address
        self._vips = tuple(vips)
        self._peers = tuple(peers)
        self._counters = counters
        self._journal = journal
        self._became_active = became_active
        self._became_backup = became_backup
        self._wire: VrrpWire | None = None
        self._frames: socket.socket | None = None
        self._link: Link | None = None
        self._wake: IDelayedCall | None = None
        self._announcing: list[IDelayedCall] = []
        # A killed or frozen owner must not go on answering ARP beside its successor: the kernel takes the
        # addresses away when nobody renews them, at about the time when another node takes over.
        self._lifetime_s = math.ceil(4 * interval_s) + 2
        self._renewals = LoopingCall(self._renew)
        self._renewals.clock = reactor
        self._refreshes = LoopingCall(self._send_announcements)
        self._refreshes.clock = reactor
        self._stopped: Deferred[None] | None = None
        self._lingering: IDelayedCall | None = None

    def startService(self) -> None:
        """:raises SystemRefused: the interface lacks our address, or sockets are not for us."""
        self._link = link(self._interface)
        if self._address not in addresses_of(self._interface):
            raise SystemRefused(
                f"run as the node with the address {self._address}",
                detail=f"the interface {self._interface} does not have it",
                advice=f"compare array.nodes with: ip addr show {self._interface} (or is --node wrong?)",
            )
        self._frames = packet_socket(self._interface)
        raw = vrrp_socket(self._interface, self._link.index, str(self._address))
        self._wire = VrrpWire(
            reactor=self._reactor,
            raw=raw,
            source=self._address,
            peers=self._peers,
            counters=self._counters,
            heard=self._heard,
        )
        self._wire.open()
        super().startService()
        self._perform(self.machine.start(self._seconds()))

    def stopService(self) -> Deferred[None] | None:
        """Hand the addresses over, then close. The Deferred fires when another node has them, or none wants them."""
        super().stopService()
        if self._stopped is not None:
            return self._stopped
        self._perform(self.machine.hand_over(self._seconds()))
        if not self.machine.leaving:
            self._close()
            return None
        self._stopped = Deferred()
        return self._stopped

    def _close(self) -> None:
        self._perform(self.machine.stop())
        if self._lingering is not None:
            self._lingering.cancel()
            self._let_go()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self._wire is not None:
            self._wire.close()
        if self._frames is not None:
            self._frames.close()

    def step_down(self) -> bool:
        """Begin to hand the addresses to another node; false when we have none to hand over.

        They stay here until the other one has them; for good when nobody takes them.
        """
        if self.machine.state is not State.ACTIVE:
            return False
        self._perform(self.machine.hand_over(self._seconds()))
        return True

    def take_over(self) -> bool:
        """Take the addresses from their living owner; false when we have them or its priority is the highest."""
        effects = self.machine.claim(self._seconds()) if self.running else []
        self._perform(effects)
        return bool(effects)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "state": self.machine.state.value,
            "owner": str(self.machine.owner) if self.machine.owner else None,
            "priority": self.machine.priority,
            "leaving": self.machine.leaving,
            "router_id": self.machine.router_id,
            "interval_s": self.machine.interval_s,
            "vips": [str(vip) for vip in self._vips],
            "interface": self._interface,
            "transitions": self.transitions,
            "since_s": round(self._seconds() - self.since, 3),
        }

    def _heard(self, advertisement: Advertisement, source: IPv4Address) -> None:
        if advertisement.router_id != self.machine.router_id:
            self._counters.add("vrrp_refused", "other_router")
            return
        self._counters.add("vrrp_received")
        ours = {vip.ip for vip in self._vips}
        if set(advertisement.addresses) != ours and advertisement.priority:
            self._counters.add("vrrp_addresses_differ", str(source))
        self._perform(self.machine.received(advertisement, source, self._seconds()))

    def _ticked(self) -> None:
        self._wake = None
        assert self._wire is not None
        # After a pause the successor's advertisements wait in the socket: hear them before deciding.
        self._wire.doRead()
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._perform(self.machine.tick(self._seconds()))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Advertise):
                self._advertise(effect.priority)
            elif isinstance(effect, TakeAddresses):
                self._take()
            elif isinstance(effect, ReleaseAddresses):
                self._release()
            elif isinstance(effect, Announce):
                self._announce()
            elif isinstance(effect, NobodyTook):
                self.log.warn("handover: nobody took {vips}; they stay here", vips=", ".join(map(str, self._vips)))
            elif isinstance(effect, WasFrozen):
                self._counters.add("vrrp_frozen")
                self.log.warn("this process stood still for {late:.1f} s: waiting anew", late=effect.late_s)
        self._rearm()
        if self._stopped is not None and not self.machine.leaving:
            # Emptied first: closing performs effects too.
            stopped, self._stopped = self._stopped, None
            self._close()
            stopped.callback(None)

    def _rearm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self.machine.deadline is not None:
            wait = max(0.0, self.machine.deadline - self._seconds())
            self._wake = self._reactor.callLater(wait, self._ticked)

    def _advertise(self, priority: int) -> None:
        assert self._wire is not None
        interval_cs = max(1, round(self.machine.interval_s * 100))
        addresses = tuple(vip.ip for vip in self._vips)
        self._wire.send(Advertisement(self.machine.router_id, priority, interval_cs, addresses))

    def _take(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self.transitions += 1
        self.since = self._seconds()
        for vip in self._vips:
            try:
                self._journal.record(Undo("address", (self._interface, str(vip))))
                add_address(self._interface, vip, lifetime_s=self._lifetime_s)
            except SystemRefused as error:
                self._counters.add("vip_refused", str(vip))
                self.log.critical("cannot take the VIP over: {error}", error=error)
        self._renewals.start(RENEW_S, now=False)
        self._refreshes.start(REFRESH_S, now=False)
        self.log.info("owner of {vips} now: this node is the scheduler", vips=", ".join(map(str, self._vips)))
        self._became_active()

    def _release(self) -> None:
        self.since = self._seconds()
        if self._renewals.running:
            self._renewals.stop()
        if self._refreshes.running:
            self._refreshes.stop()
        for call in self._announcing:
            if call.active():
                call.cancel()
        self._announcing.clear()
        for vip in self._vips:
            try:
                self._journal.undo(Undo("address", (self._interface, str(vip))))
                remove_address(self._interface, vip)
            except SystemRefused as error:
                self._counters.add("vip_refused", str(vip))
                self.log.critical("cannot give the VIP up: {error}", error=error)
        self.log.info("no longer owner of {vips}", vips=", ".join(map(str, self._vips)))
        if self.machine.state is State.BACKUP and self.machine.owner is not None:
            # Its advertisement overtook its announcement: what neighbours still send to us belongs to clients of
            # other workers, and would be reset here if it was no longer forwarded.
            self._lingering = self._reactor.callLater(LINGER_S, self._let_go)
        else:
            self._became_backup()

    def _let_go(self) -> None:
        self._lingering = None
        self._became_backup()

    def _renew(self) -> None:
        for vip in self._vips:
            try:
                add_address(self._interface, vip, lifetime_s=self._lifetime_s)
            except SystemRefused as error:
                self._counters.add("vip_refused", str(vip))
                self.log.critical("cannot keep the VIP: {error}", error=error)

    def _announce(self) -> None:
        self._send_announcements()
        for call in self._announcing:
            if call.active():
                call.cancel()
        later = [delay for delay in REPEATS_S if delay]
        self._announcing = [self._reactor.callLater(delay, self._send_announcements) for delay in later]

    def _send_announcements(self) -> None:
        assert self._frames is not None and self._link is not None
        for vip in self._vips:
            try:
                self._frames.send(announcement(vip.ip, self._link.mac))
            except OSError:
                self._counters.add("announcement_failed", str(vip.ip))
            else:
                self._counters.add("announcements")
