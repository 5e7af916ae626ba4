"""The VRRP state machine (RFC 9568 §6.4), without sockets and without a clock.

Events go in with the time; effects come out, to be performed in order. ``deadline`` says when
:meth:`Machine.tick` wants to be called.
"""

from __future__ import annotations

import enum

import attrs

from lbarray.errors import ArrayError
from lbarray.failover.packet import Advertisement
from lbarray.values import Address

__all__ = [
    "Advertise",
    "Announce",
    "Contested",
    "Effect",
    "Forward",
    "Machine",
    "NeverStarted",
    "NobodyTook",
    "OwnerSilent",
    "ReleaseAddresses",
    "State",
    "TakeAddresses",
    "WasFrozen",
]

#: Seconds between two announcements that a lower-priority owner provokes.
REANNOUNCE_S = 1.0


class State(enum.Enum):
    """RFC 9568 §6.3."""

    INITIALIZE = "initialize"
    BACKUP = "backup"
    ACTIVE = "active"


class NeverStarted(ArrayError):
    """The machine was given an event in the Initialize state: a mistake in this program."""


@attrs.frozen
class Advertise:
    """Send an advertisement with this priority now."""

    priority: int


@attrs.frozen
class Forward:
    """Forward what comes for the addresses from now on: neighbours are about to hear of us."""


@attrs.frozen
class TakeAddresses:
    """Add the virtual addresses to the interface."""


@attrs.frozen
class ReleaseAddresses:
    """Remove the virtual addresses from the interface."""


@attrs.frozen
class Announce:
    """Tell the segment that the addresses live here now."""


@attrs.frozen
class Contested:
    """Another one had the addresses besides us: the segment was parted. Who keeps them tells the neighbours again."""


@attrs.frozen
class NobodyTook:
    """A handover came to nothing: nobody took the addresses, so we keep them."""


@attrs.frozen
class OwnerSilent:
    """The Active Router at ``owner`` has not been heard for as long as makes a dead one, and did not say farewell."""

    owner: Address


@attrs.frozen
class WasFrozen:
    """This process stood still for ``late_s`` seconds (SIGSTOP, a paused machine): say so."""

    late_s: float


Effect = (
    Advertise | Forward | TakeAddresses | ReleaseAddresses | Announce | Contested | NobodyTook | OwnerSilent | WasFrozen
)


class Machine:
    """One virtual router on one node.

    :param priority: 1 to 255; 255 takes the addresses without waiting (§6.4.1).
    :param interval_s: our advertisement interval; as a backup, the Active Router's is learnt.
    :param source: the address our advertisements come from: breaks ties of priority (§6.4.3).
    :param preempt: take over from an Active Router of lower priority.
    :param preempt_delay_s: but only after having heard it for so long.
    :ivar base_priority: what this node is worth now (:meth:`adjust`).
    :ivar priority: what we advertise: ``base_priority``, or more after :meth:`claim`.
    :ivar suspended: this node may not own the addresses (:meth:`suspend`).
    :ivar owner: who owns the addresses as far as we know; ``source`` when we do.
    :ivar deadline: when to call :meth:`tick`, in the clock of the ``now`` arguments; ``None`` for never.
    """

    def __init__(
        self,
        *,
        router_id: int,
        priority: int,
        interval_s: float,
        source: Address,
        preempt: bool = True,
        preempt_delay_s: float = 0.0,
    ) -> None:
        self.router_id = router_id
        self.base_priority = priority
        self.priority = priority
        self.interval_s = interval_s
        self.source = source
        self.preempt = preempt
        self.preempt_delay_s = preempt_delay_s
        self.state = State.INITIALIZE
        self.suspended = False
        self.owner: Address | None = None
        self.deadline: float | None = None
        self._active_interval_s = interval_s
        self._owner_priority = 0
        self._heard_at = 0.0
        self._preempt_at: float | None = None
        self._leaving_until: float | None = None
        self._yielded = False
        self._reannounce_at = 0.0
        self._reassert_at = 0.0

    @property
    def leaving(self) -> bool:
        """A handover is under way: we still have the addresses and wait for somebody to take them."""
        return self._leaving_until is not None

    @property
    def skew_time_s(self) -> float:
        """How much longer than three intervals we wait: less, the higher our priority (§6.1)."""
        return (256 - self.priority) * self._active_interval_s / 256

    @property
    def active_down_interval_s(self) -> float:
        """How long an Active Router may be silent (§6.1)."""
        return 3 * self._active_interval_s + self.skew_time_s

    def start(self, now: float) -> list[Effect]:
        """Begin (§6.4.1)."""
        if self.state is not State.INITIALIZE or self.suspended:
            return []
        if self.priority == 255:
            return self._become_active(now)
        self._active_interval_s = self.interval_s
        self.state = State.BACKUP
        self.deadline = now + self.active_down_interval_s
        return []

    def start_as_owner(self, now: float) -> list[Effect]:
        """Begin with addresses that this node had as another router's: its own backups need no election either."""
        return self._become_active(now) if self.state is State.INITIALIZE and not self.suspended else []

    def stop(self) -> list[Effect]:
        """End: an Active Router says so with priority 0, so that its successor waits only for the skew."""
        effects: list[Effect] = []
        if self.state is State.ACTIVE:
            effects = [ReleaseAddresses(), Advertise(0)]
        self.state, self.deadline, self.owner = State.INITIALIZE, None, None
        self._leaving_until, self._yielded, self.priority = None, False, self.base_priority
        return effects

    def suspend(self) -> list[Effect]:
        """This node is not fit to own the addresses (no carrier, no plane): give them up, and take none."""
        owner = None if self.state is State.ACTIVE else self.owner
        effects = self.stop()
        self.suspended, self.owner = True, owner
        return effects

    def resume(self, now: float) -> list[Effect]:
        """Fit again: wait as at the start, because we do not know who owns the addresses."""
        if not self.suspended:
            return []
        self.suspended, self.owner = False, None
        return self.start(now)

    def adjust(self, priority: int, now: float) -> list[Effect]:
        """This node is worth ``priority`` from now on; the others hear it at once where it matters.

        A lower one ends a claim: what was claimed is for somebody who is fit for it.
        """
        if priority == self.base_priority:
            return []
        claimed = self.priority > self.base_priority and priority > self.base_priority
        self.base_priority = priority
        self.priority = max(self.priority, priority) if claimed else priority
        if self.state is not State.ACTIVE or self.leaving:
            return []
        self.deadline = now + self.interval_s
        return [Advertise(self.priority)]

    def follow(self, *, interval_s: float, preempt: bool, preempt_delay_s: float, now: float) -> list[Effect]:
        """Be configured like this from now on; an Active Router's backups learn a new interval at once."""
        self.preempt, self.preempt_delay_s = preempt, preempt_delay_s
        if interval_s == self.interval_s:
            return []
        self.interval_s = interval_s
        if self.state is not State.ACTIVE or self.leaving:
            return []
        self.deadline = now + interval_s
        return [Advertise(self.priority)]

    def hand_over(self, now: float) -> list[Effect]:
        """Invite the others to take the addresses, and keep them until one has.

        Priority 0 makes the backups wait for their skew only (§6.4.2). The addresses stay here meanwhile, so that
        no packet meets nobody; the successor's first advertisement ends it.
        """
        if self.state is not State.ACTIVE or self.leaving:
            return []
        # Whoever missed each priority 0 of ours finds out by our silence, within four intervals.
        self._leaving_until = now + 4.5 * self.interval_s
        return self._invite(now)

    def _invite(self, now: float) -> list[Effect]:
        # Not each interval: a backup of low priority has a skew of nearly that, and every 0 begins it anew.
        self.deadline = now + 1.5 * self.interval_s
        return [Advertise(0)]

    def claim(self, now: float) -> list[Effect]:
        """Take the addresses from a living owner: it yields when it hears our priority, higher than its own.

        Nothing happens when the owner's priority cannot be exceeded: then it is the owner that has to hand over.
        """
        if self.state is not State.BACKUP or self._owner_priority >= 254:
            return []
        self.priority = max(self.priority, self._owner_priority + 1)
        return self._become_active(now)

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come, perhaps. Hear what is in the socket before: the news may be old, not missing."""
        if self.deadline is None or now < self.deadline:
            return []
        late_s = now - self.deadline
        if self.state is State.BACKUP:
            if late_s > self.active_down_interval_s:
                self.deadline = now + self.active_down_interval_s
                return [WasFrozen(late_s)]
            silent = self.owner is not None and now - self._heard_at >= 3 * self._active_interval_s
            return self._become_active(now, self.owner if silent else None)  # §6.4.2: nobody advertised
        if self._overslept(now):
            return self._give_up(now)
        if self._leaving_until is not None:
            if now < self._leaving_until:
                return self._invite(now)
            self._leaving_until = None
            self.deadline = now + self.interval_s
            return [NobodyTook(), Advertise(self.priority)]
        # §6.4.3; counted from when it was due, so that small delays do not add up to a longer interval.
        self.deadline = max(now, self.deadline + self.interval_s)
        return [Advertise(self.priority)]

    def _overslept(self, now: float) -> bool:
        """Four intervals since our last word as Active Router: another one has the addresses by now."""
        return self.deadline is not None and now - self.deadline > 3 * self.interval_s

    def _give_up(self, now: float) -> list[Effect]:
        assert self.deadline is not None
        late_s = now - self.deadline
        self._become_backup(None, self.interval_s, now)
        return [ReleaseAddresses(), WasFrozen(late_s)]

    def received(self, advertisement: Advertisement, source: Address, now: float) -> list[Effect]:
        """An advertisement for this router came from ``source``.

        :raises NeverStarted: the machine was not started.
        """
        if self.suspended:
            self.owner = source if advertisement.priority else None
            return []
        if self.state is State.BACKUP:
            return self._heard_as_backup(advertisement, source, now)
        if self.state is State.ACTIVE and self._overslept(now):
            # Not even against a lower one: it took what we left, and a fight would cost its clients.
            return self._give_up(now) + self._heard_as_backup(advertisement, source, now)
        if self.state is State.ACTIVE:
            return self._heard_as_active(advertisement, source, now)
        raise NeverStarted("an advertisement before start()")

    def _heard_as_backup(self, heard: Advertisement, source: Address, now: float) -> list[Effect]:
        if heard.priority == 0:  # it is leaving
            self.owner = None
            self._owner_priority = 0
            self.deadline = now + self.skew_time_s
            return []
        self.owner, self._owner_priority, self._heard_at = source, heard.priority, now
        if heard.priority >= self.priority:
            self._preempt_at = None
        elif self._preempts:
            if self._preempt_at is None:
                self._preempt_at = now + self.preempt_delay_s
            if now >= self._preempt_at:
                return []  # it is discarded, and our patience runs out (§6.4.2)
        self._active_interval_s = heard.interval_cs / 100
        self.deadline = now + self.active_down_interval_s
        return []

    @property
    def _preempts(self) -> bool:
        """May we take from a living owner of lower priority? With 255 always (§6.1, Preempt_Mode)."""
        return (self.preempt or self.priority == 255) and not self._yielded

    def _heard_as_active(self, heard: Advertisement, source: Address, now: float) -> list[Effect]:
        if heard.priority == 0:
            if self.leaving:
                return []
            # Someone else was Active as well and leaves: make our neighbours and it hear us at once.
            self.deadline = now + self.interval_s
            return [Advertise(self.priority), Announce()]
        effects: list[Effect] = [ReleaseAddresses()]
        if self.leaving:
            self._yielded = True
        elif (heard.priority, int(source)) <= (self.priority, int(self.source)):
            return self._assert_ours(now)
        else:
            # After a parting it may never have heard us, and would not tell the neighbours who believed us.
            effects += [Advertise(self.base_priority), Contested()]
        self._owner_priority = heard.priority
        self._become_backup(source, heard.interval_cs / 100, now)
        return effects

    def _assert_ours(self, now: float) -> list[Effect]:
        """A lower one believes itself Active: tell it (§6.4.3), and soon those neighbours who believed it.

        Both are limited, so that a flood of such advertisements does not make us send one.
        """
        effects: list[Effect] = []
        if now >= self._reassert_at:
            self._reassert_at = now + self.interval_s
            effects.append(Advertise(self.priority))
        if now >= self._reannounce_at:
            self._reannounce_at = now + REANNOUNCE_S
            effects.append(Contested())
        return effects

    def _become_backup(self, owner: Address | None, interval_s: float, now: float) -> None:
        self.state, self.owner = State.BACKUP, owner
        self.priority = self.base_priority
        self._leaving_until = self._preempt_at = None
        self._active_interval_s = interval_s
        self.deadline = now + self.active_down_interval_s

    def _become_active(self, now: float, dead: Address | None = None) -> list[Effect]:
        self.state, self.owner = State.ACTIVE, self.source
        self._yielded, self._preempt_at = False, None
        self.deadline = now + self.interval_s
        # Other backups first, for the next one's skew is soon over; then the neighbours, whose packets went to nobody
        # or to the dead one. What it had as a worker comes before the addresses: those only answer who asks for them.
        lost: list[Effect] = [] if dead is None else [OwnerSilent(dead)]
        return [Forward(), Advertise(self.priority), Announce(), *lost, TakeAddresses()]
