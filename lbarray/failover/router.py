"""One virtual router on one node: performs what its machine decides, and looks for strangers with its addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.config.routers import VirtualRouter
from lbarray.failover.announce import REPEATS_S, Claim, announcements, probe
from lbarray.failover.duplicates import FORGET_S, DuplicateWatch
from lbarray.failover.holding import AddressHolder, virtual_mac
from lbarray.failover.machine import (
    Advertise,
    Announce,
    Contested,
    Effect,
    Forward,
    Machine,
    NobodyTook,
    OwnerSilent,
    ReleaseAddresses,
    State,
    TakeAddresses,
    WasFrozen,
)
from lbarray.failover.packet import Advertisement
from lbarray.failover.tracking import Condition, Tracker
from lbarray.kernel.alarm import alarm
from lbarray.telemetry.counters import Counters
from lbarray.values import Address

__all__ = ["CONTESTED_S", "LINGER_S", "RENEW_S", "RouterOnNode"]

#: Seconds between two renewals of the addresses' lifetimes.
RENEW_S = 1.0
#: Seconds that we go on forwarding after a successor was heard: until every neighbour has learnt of it.
LINGER_S = 0.5
#: Seconds that nodes which were parted have to hear each other, before neighbours are led from one owner to the other.
CONTESTED_S = 0.1
#: Seconds between a stranger's claim on an address of ours and our verdict: its advertisement may come behind it.
JUDGE_S = 0.5
DUPLICATE = Condition("duplicate address")
ADDRESSES = Condition("addresses")
#: Seconds after which a node that could not take the addresses may try again.
RETRY_S = 10.0


class RouterOnNode:
    """A virtual router as one node sees it.

    :param spec: what the configuration says of it.
    :param source: the address that our advertisements come from.
    :param holder: has the addresses for us.
    :param send: sends an advertisement, from the virtual MAC address when there is one.
    :param send_frame: sends an Ethernet frame on the interface; raises ``OSError``.
    :param seconds: the machine's time, of a clock that nobody sets.
    :param read_wire: hears what waits in the socket.
    :param changed: called when :attr:`forwards` changed.
    :param owner_lost: called when the owner before us fell silent: its address, and for how long at least in seconds.
    :param contested: called when there was another owner besides us.
    :ivar forwards: our packets' plane is to forward for these addresses: we own them, or did a moment ago.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        spec: VirtualRouter,
        node_name: str,
        source: Address,
        holder: AddressHolder,
        send: Callable[[Advertisement, bytes | None], object],
        send_frame: Callable[[bytes], object],
        read_wire: Callable[[], None],
        counters: Counters,
        seconds: Callable[[], float],
        refresh_s: float,
        detect_duplicates: bool,
        changed: Callable[[], None],
        owner_lost: Callable[[Address, float], None] = lambda owner, silent_s: None,
        contested: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec = spec
        self.tracker = Tracker(spec.priorities[node_name])
        self.machine = Machine(
            router_id=spec.router_id,
            priority=spec.priorities[node_name],
            interval_s=spec.interval_s,
            source=source,
            preempt=spec.preempt,
            preempt_delay_s=spec.preempt_delay_s,
        )
        self.forwards = False
        self.transitions = 0
        self.takeover_s: float | None = None
        self.running = False
        self._addresses = tuple(vip.ip for vip in spec.vips)
        self._names = ", ".join(str(vip.ip) for vip in spec.vips)
        self._reactor = reactor
        self._holder = holder
        self._send = send
        self._send_frame = send_frame
        self._read_wire = read_wire
        self._counters = counters
        self._seconds = seconds
        self._changed = changed
        self._owner_lost = owner_lost
        self._contested = contested
        self._since = seconds()
        self._owner_heard: float | None = None
        self._wake = alarm(reactor, self._ticked)
        self._lingering: IDelayedCall | None = None
        self._announcing: list[IDelayedCall] = []
        self._asking: list[IDelayedCall] = []
        self._judging: IDelayedCall | None = None
        self._trying: IDelayedCall | None = None
        own_macs = [holder.mac, virtual_mac(spec.version, spec.router_id)]
        self._watch = DuplicateWatch(addresses=self._addresses, ours=own_macs) if detect_duplicates else None
        self._renewals = LoopingCall(holder.renew)
        self._renewals.clock = reactor
        self._refreshes = LoopingCall(self._send_announcements)
        self._refreshes.clock = reactor
        self._refresh_s = refresh_s

    # Life

    @property
    def owns(self) -> bool:
        """This node has the addresses."""
        return self.machine.state is State.ACTIVE

    def start(self, *, owning: bool = False) -> None:
        """Begin; the sockets are open. ``owning``: this node had all of the addresses until now."""
        self.running = True
        if self.tracker.fit and owning:
            self._perform(self.machine.start_as_owner(self._seconds()))
        elif self.tracker.fit:
            self._perform(self.machine.start(self._seconds()))
        else:
            self._perform(self.machine.suspend())
        if self._watch is not None and self.machine.state is not State.ACTIVE:
            # RFC 5227 §2.1.1 has three probes, a second or two apart; we have until the others' silence makes us owner.
            apart_s = min(1.0, self.machine.active_down_interval_s / 4)
            self._ask(*(place * apart_s for place in range(3)))

    def stop(self, *, farewell: bool = True) -> None:
        """End now: what we have is given up, and the others are told (``farewell``)."""
        self.running = False
        self._perform([each for each in self.machine.stop() if farewell or not isinstance(each, Advertise)])
        if self._lingering is not None:
            self._lingering.cancel()
            self._let_go()
        for call in [self._judging, self._trying, *self._announcing, *self._asking]:
            if call is not None and call.active():
                call.cancel()
        self._judging = None
        self._wake.close()

    def follow(self, spec: VirtualRouter, node_name: str, refresh_s: float) -> None:
        """Be what ``spec`` says: the same number and MAC address, perhaps other addresses, priorities, intervals.

        An owner stays owner, unless it is worth less now: only addresses that came or went are touched.
        """
        now, before = self._seconds(), self._addresses
        self.spec = spec
        self._addresses = tuple(vip.ip for vip in spec.vips)
        self._names = ", ".join(str(vip) for vip in self._addresses)
        active = self.machine.state is State.ACTIVE
        if self._addresses != before and self._watch is not None:
            own_macs = [self._holder.mac, virtual_mac(spec.version, spec.router_id)]
            self._watch = DuplicateWatch(addresses=self._addresses, ours=own_macs)
        if refused := self._holder.follow(spec.vips, spec.interval_s, having=active):
            self._trying = self._reactor.callLater(0, self._could_not_take, refused)
        self._refresh_s = refresh_s
        if self._refreshes.running:
            self._refreshes.stop()
            self._refreshes.start(refresh_s, now=False)
        self.tracker.rebase(spec.priorities[node_name])
        self._perform(
            [
                *self.machine.follow(
                    interval_s=spec.interval_s, preempt=spec.preempt, preempt_delay_s=spec.preempt_delay_s, now=now
                ),
                *self.machine.adjust(self.tracker.priority, now),
                *([Announce()] if active and self._addresses != before else []),
            ]
        )
        self._changed()

    # What operators and the node say

    def report(self, condition: Condition, good: bool, why: str = "") -> None:
        """Something about this node that its priority depends on is so, or ``why`` it is not."""
        if not self.tracker.report(condition, good, why):
            return
        self._counters.add("vrrp_conditions_failed" if not good else "vrrp_conditions_passed", condition.name)
        if good:
            self.log.info("{name}: well again", name=condition.name)
        else:
            lowered = f"its priority is {condition.weight} lower"
            what = "it does not own them" if condition.weight is None else lowered
            self.log.warn("{vips}: {why}; meanwhile {what}", vips=self._names, why=why or condition.name, what=what)
        if not self.running:
            return
        now = self._seconds()
        if self.tracker.fit and self.machine.suspended:
            self._perform(self.machine.adjust(self.tracker.priority, now))
            self._perform(self.machine.resume(now))
        elif not self.tracker.fit and not self.machine.suspended:
            self._perform(self.machine.suspend())
        self._perform(self.machine.adjust(self.tracker.priority, now))

    def moved(self, mac: bytes) -> None:
        """The interface has this MAC address now, six octets: neighbours are told when the addresses are there."""
        if mac == self._holder.parent_mac:
            return
        self._holder.parent_mac = mac
        if self._watch is not None:
            self._watch.know([mac])
        if self.machine.state is State.ACTIVE:
            self._announce()

    def step_down(self) -> bool:
        """Begin to hand the addresses to another node; false when we have none to hand over."""
        if self.machine.state is not State.ACTIVE:
            return False
        self._perform(self.machine.hand_over(self._seconds()))
        return True

    def take_over(self) -> bool:
        """Take the addresses from their living owner; false when we have them, are unfit, or it cannot be outbid."""
        effects = self.machine.claim(self._seconds()) if self.running and not self.machine.suspended else []
        self._perform(effects)
        return bool(effects)

    def has(self, address: Address) -> bool:
        """Is ``address`` one of this router's?"""
        return address in self._addresses

    def status(self) -> dict[str, object]:
        """What the console shows."""
        machine = self.machine
        return {
            "vips": [str(vip) for vip in self.spec.vips],
            "state": "unfit" if machine.suspended else machine.state.value,
            "owner": str(machine.owner) if machine.owner else None,
            "priority": machine.priority,
            "failing": self.tracker.failing,
            "leaving": machine.leaving,
            "router_id": machine.router_id,
            "ip": self.spec.version,
            "interval_s": machine.interval_s,
            "interface": self._holder.interface,
            "mac": self._holder.mac.hex(":") if machine.state is State.ACTIVE else None,
            "transitions": self.transitions,
            "since_s": round(self._seconds() - self._since, 3),
            "takeover_s": None if self.takeover_s is None else round(self.takeover_s, 4),
        }

    # What the segment says

    def heard(self, said: Advertisement, source: Address) -> None:
        """An advertisement for this router."""
        now = self._seconds()
        self._counters.add("vrrp_received", self.spec.name)
        if set(said.addresses) != set(self._addresses) and said.priority:
            self._counters.add("vrrp_addresses_differ", str(source))
        if said.priority:
            self._owner_heard = now
            if self._watch is not None:
                self._watch.adopt(now, 2 * JUDGE_S)
        self._perform(self.machine.received(said, source, now))

    def claimed(self, claim: Claim, members: Iterable[bytes]) -> None:
        """Somebody claims an address on the segment."""
        now = self._seconds()
        if self._watch is None:
            return
        self._watch.know(members)
        if self.machine.state is State.BACKUP and self.machine.owner is not None:
            self._watch.know([claim.mac])  # the VRRP owner, or what answers for it
        elif self._watch.claimed(claim, now) and self.machine.state is State.ACTIVE and self._judging is None:
            self._judging = self._reactor.callLater(max(JUDGE_S, self.machine.interval_s), self._judge)

    def _judge(self) -> None:
        """A stranger claimed an address of ours, and no advertisement of its own came with it."""
        self._judging = None
        now = self._seconds()
        stranger = self._watch.stranger(now) if self._watch is not None else None
        if stranger is None or self.machine.state is not State.ACTIVE:
            return
        self._counters.add("vip_conflicts", str(stranger.address))
        if self._watch is not None and self._watch.may_defend(now):
            self.log.critical(
                "{address} is ours, and {mac} claims it too: find that machine and take the address away from it "
                "(announcing ours again)",
                address=stranger.address,
                mac=stranger.mac.hex(":"),
            )
            self._send_announcements()

    def _ask(self, *delays_s: float) -> None:
        self._asking = [call for call in self._asking if call.active()]
        self._asking += [self._reactor.callLater(delay, self._probe) for delay in delays_s]

    def _probe(self) -> None:
        if self.machine.state is State.ACTIVE:
            return
        for address in self._addresses:
            try:
                self._send_frame(probe(address, self._holder.mac))
            except OSError:
                self._counters.add("announcement_failed", str(address))
        if DUPLICATE.name in self.tracker.failing:
            stranger = self._watch.stranger(self._seconds()) if self._watch is not None else None
            if stranger is None:
                self.report(DUPLICATE, True)
            else:
                self._ask(FORGET_S / 4)

    def _held_by_a_stranger(self) -> bool:
        """Nobody advertises, and still somebody answers for an address of ours: then it is not ours to take."""
        stranger = self._watch.stranger(self._seconds()) if self._watch is not None else None
        if stranger is None or self.machine.state is not State.BACKUP:
            return False
        self._counters.add("vip_conflicts", str(stranger.address))
        self.report(
            DUPLICATE,
            False,
            f"{stranger.address} is held by {stranger.mac.hex(':')}, which is no node of this array and speaks no "
            "VRRP: take the address away from that machine",
        )
        self._ask(FORGET_S / 4)
        return True

    # What the machine decides

    def _ticked(self) -> None:
        # After a pause the successor's advertisements wait in the socket: hear them before deciding.
        self._read_wire()
        now, deadline = self._seconds(), self.machine.deadline
        if deadline is not None and now >= deadline and self._held_by_a_stranger():
            return
        self._perform(self.machine.tick(now))

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Advertise):
                self._advertise(effect.priority)
            elif isinstance(effect, Forward):
                self._forward()
            elif isinstance(effect, TakeAddresses):
                self._take()
            elif isinstance(effect, ReleaseAddresses):
                self._release()
            elif isinstance(effect, Announce):
                self._announce()
            elif isinstance(effect, Contested):
                self._contested()
                if self.machine.state is State.ACTIVE:
                    self._announcing.append(self._reactor.callLater(CONTESTED_S, self._announce))
            elif isinstance(effect, NobodyTook):
                self.log.warn("handover: nobody took {vips}; they stay here", vips=self._names)
            elif isinstance(effect, OwnerSilent):
                self._owner_lost(effect.owner, 2 * self.machine.interval_s)
            elif isinstance(effect, WasFrozen):
                self._counters.add("vrrp_frozen", self.spec.name)
                self.log.warn("this process stood still for {late:.3g} s: waiting anew", late=effect.late_s)
        self._rearm()
        if effects:
            self._changed()

    def _rearm(self) -> None:
        if self.machine.deadline is None:
            self._wake.cancel()
        else:
            self._wake.set(max(0.0, self.machine.deadline - self._seconds()))

    def _advertise(self, priority: int) -> None:
        interval_cs = max(1, round(self.machine.interval_s * 100))
        said = Advertisement(self.machine.router_id, priority, interval_cs, self._addresses)
        self._send(said, self._holder.mac if self.spec.virtual_mac else None)
        self._counters.add("vrrp_sent", self.spec.name)

    def _forward(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self.transitions += 1
        self._since = self._seconds()
        self.forwards = True
        self._changed()
        if self.spec.virtual_mac:
            # Frames for a MAC address that is not ours yet would be dropped.
            self._hold()
        # From the last word of the owner before us until packets for the addresses are ours.
        self.takeover_s = None if self._owner_heard is None else self._seconds() - self._owner_heard
        self._owner_heard = None

    def _take(self) -> None:
        if not self.spec.virtual_mac:
            self._hold()
        self._renewals.start(RENEW_S, now=False)
        self._refreshes.start(self._refresh_s, now=False)
        self.log.info("owner of {vips} now: this node is their scheduler", vips=self._names)

    def _hold(self) -> None:
        if refused := self._holder.take():
            # An owner without its addresses would keep the others from having them.
            self._trying = self._reactor.callLater(0, self._could_not_take, refused)

    def _could_not_take(self, why: str) -> None:
        self.report(ADDRESSES, False, why)
        self._trying = self._reactor.callLater(RETRY_S, self.report, ADDRESSES, True)

    def _release(self) -> None:
        self.transitions += 1
        self._since = self._seconds()
        for loop in (self._renewals, self._refreshes):
            if loop.running:
                loop.stop()
        for call in self._announcing:
            if call.active():
                call.cancel()
        self._announcing.clear()
        self._holder.release()
        self.log.info("no longer owner of {vips}", vips=self._names)
        if self.machine.state is State.BACKUP and self.machine.owner is not None:
            # Its advertisement overtook its announcement: what neighbours still send to us belongs to clients of
            # other workers, and would be reset here if it was no longer forwarded.
            self._lingering = self._reactor.callLater(LINGER_S, self._let_go)
        else:
            self._let_go()

    def _let_go(self) -> None:
        self._lingering = None
        self.forwards = False
        self._changed()

    def _announce(self) -> None:
        self._send_announcements()
        for call in self._announcing:
            if call.active():
                call.cancel()
        later = [delay for delay in REPEATS_S if delay]
        self._announcing = [self._reactor.callLater(delay, self._send_announcements) for delay in later]

    def _send_announcements(self) -> None:
        for address in self._addresses:
            for frame in announcements(address, self._holder.mac):
                try:
                    self._send_frame(frame)
                except OSError:
                    self._counters.add("announcement_failed", str(address))
                else:
                    self._counters.add("announcements", str(address))
