"""The node's own load, measured in one rhythm, and the share that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.scheduler.weights import Share
from lbarray.telemetry.counters import Counters
from lbarray.values import Load

__all__ = ["FeedbackService"]

#: Seconds between two measurements.
MEASURE_S = 1.0


class FeedbackService(Service):
    """Measures and steers once a second, and when the node begins to take clients.

    :param measure: the load since it was last called.
    :param members: an :class:`lbarray.interfaces.IMembershipSource`.
    :param queued: clients that wait to be accepted at these ports; :param ports: ours.
    :param taking: does this node take new clients?
    :param changed: our share is another now.
    :ivar load: as last measured.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        share: Share,
        members: Any,
        measure: Callable[[], Load],
        queued: Callable[[Collection[int]], int] = lambda ports: 0,
        ports: Collection[int] = (),
        taking: Callable[[], bool],
        changed: Callable[[], None],
        counters: Counters,
    ) -> None:
        self.load = Load()
        self._clock = clock
        self._share = share
        self._members = members
        self._measure = measure
        self._queued = queued
        self._ports = frozenset(ports)
        self._taking = taking
        self._changed = changed
        self._counters = counters
        self._took = False
        self._complained = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    @property
    def share(self) -> int:
        """How much of its weight this node takes, in thousandths."""
        return self._share.value

    def startService(self) -> None:
        super().startService()
        self._loop.start(MEASURE_S)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def reconfigure(self, *, feedback: bool, slow_start_s: float, ports: Collection[int]) -> None:
        """Steer like this from the next measurement on."""
        self._ports = frozenset(ports)
        self._share.follow(feedback=feedback, slow_start_s=slow_start_s)

    def look(self) -> None:
        """Whether we take clients may have changed: a slow start begins before anybody hears of it."""
        taking = self._taking()
        begins, self._took = taking and not self._took, taking
        if begins:
            self._share.begin(self._members.members(), self._clock.seconds())

    def _tick(self) -> None:
        try:
            self.load = attrs.evolve(self._measure(), accept_queue=self._queued(self._ports))
        except SystemRefused as error:
            self._counters.add("load_unknown")
            if not self._complained:
                self._complained = True
                self.log.warn("{error}; the share of this node does not follow its load", error=error)
        self.look()
        if self._share.observe(self._members.members(), self._clock.seconds()):
            self._counters.add("share_changed")
            self._changed()

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {"share": self.share / 1000, "starting": self._share.starting}
