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

__all__ = ["Advertise", "Announce", "Effect", "Machine", "NeverStarted", "ReleaseAddresses", "State", "TakeAddresses"]


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
class TakeAddresses:
    """Add the virtual addresses to the interface."""


@attrs.frozen
class ReleaseAddresses:
    """Remove the virtual addresses from the interface."""


@attrs.frozen
class Announce:
    """Tell the segment that the addresses live here now."""


Effect = Advertise | TakeAddresses | ReleaseAddresses | Announce


class Machine:
    """One virtual router on one node.

    :param priority: 1 to 255; 255 takes the addresses without waiting (§6.4.1).
    :param interval_s: our advertisement interval; as a backup, the Active Router's is learnt.
    :param source: the address our advertisements come from: breaks ties of priority (§6.4.3).
    :param preempt: take over from an Active Router of lower priority.
    :ivar owner: who owns the addresses as far as we know; ``source`` when we do.
    :ivar deadline: when to call :meth:`tick`, in the clock of the ``now`` arguments; ``None`` for never.
    """

    def __init__(
        self, *, router_id: int, priority: int, interval_s: float, source: Address, preempt: bool = True
    ) -> None:
        self.router_id = router_id
        self.priority = priority
        self.interval_s = interval_s
        self.source = source
        self.preempt = preempt
        self.state = State.INITIALIZE
        self.owner: Address | None = None
        self.deadline: float | None = None
        self._active_interval_s = interval_s
        self._active_down = 0.0

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
        if self.state is not State.INITIALIZE:
            return []
        if self.priority == 255:
            return self._become_active(now)
        self._active_interval_s = self.interval_s
        self.state = State.BACKUP
        self.deadline = now + self.active_down_interval_s
        return []

    def stop(self) -> list[Effect]:
        """End: an Active Router says so with priority 0, so that its successor waits only for the skew."""
        effects: list[Effect] = []
        if self.state is State.ACTIVE:
            effects = [ReleaseAddresses(), Advertise(0)]
        self.state, self.deadline, self.owner = State.INITIALIZE, None, None
        return effects

    def step_down(self, now: float) -> list[Effect]:
        """Hand the addresses over and be a backup; we wait long enough for any other to take them."""
        if self.state is not State.ACTIVE:
            return []
        self.state, self.owner = State.BACKUP, None
        self._active_interval_s = self.interval_s
        self.deadline = now + self.active_down_interval_s
        return [ReleaseAddresses(), Advertise(0)]

    def tick(self, now: float) -> list[Effect]:
        """The deadline has come, perhaps."""
        if self.deadline is None or now < self.deadline:
            return []
        if self.state is State.BACKUP:  # §6.4.2: nobody advertised
            return self._become_active(now)
        self.deadline = now + self.interval_s  # §6.4.3
        return [Advertise(self.priority)]

    def received(self, advertisement: Advertisement, source: Address, now: float) -> list[Effect]:
        """An advertisement for this router came from ``source``.

        :raises NeverStarted: the machine is in the Initialize state.
        """
        if self.state is State.BACKUP:
            return self._heard_as_backup(advertisement, source, now)
        if self.state is State.ACTIVE:
            return self._heard_as_active(advertisement, source, now)
        raise NeverStarted("an advertisement before start()")

    def _heard_as_backup(self, heard: Advertisement, source: Address, now: float) -> list[Effect]:
        if heard.priority == 0:  # it is leaving
            self.owner = None
            self.deadline = now + self.skew_time_s
        elif not self.preempt or heard.priority >= self.priority:
            self.owner = source
            self._active_interval_s = heard.interval_cs / 100
            self.deadline = now + self.active_down_interval_s
        else:  # a lower one: it is discarded, and our patience runs out (§6.4.2)
            self.owner = source
        return []

    def _heard_as_active(self, heard: Advertisement, source: Address, now: float) -> list[Effect]:
        if heard.priority == 0:
            # Someone else was Active as well and leaves: make our neighbours and it hear us at once.
            self.deadline = now + self.interval_s
            return [Advertise(self.priority), Announce()]
        higher = (heard.priority, int(source)) > (self.priority, int(self.source))
        if not higher:
            return []
        self.state, self.owner = State.BACKUP, source
        self._active_interval_s = heard.interval_cs / 100
        self.deadline = now + self.active_down_interval_s
        return [ReleaseAddresses()]

    def _become_active(self, now: float) -> list[Effect]:
        self.state, self.owner = State.ACTIVE, self.source
        self.deadline = now + self.interval_s
        # The addresses first: whoever hears the others may send at once.
        return [TakeAddresses(), Advertise(self.priority), Announce()]
