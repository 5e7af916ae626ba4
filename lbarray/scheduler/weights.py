"""How much of its weight a worker takes: less while it starts, less while it is busier than the others.

Every node computes its own share and says it in its heartbeats, so that all compute the same table from what they hear.
The control is integral: a share changes in steps as long as the node's load differs from the mean, and stays when it
does not. That balances machines of different speed without anybody telling their weights, and small steps, far apart,
move few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from lbarray.values import Load, NodeReport

__all__ = ["WHOLE", "Share", "pressure"]

#: A share of one, as reports say it.
WHOLE: Final = 1000
#: No node gets less than this of its weight, however busy it is: something must show when it is better.
FLOOR: Final = 0.1
#: Largest change of a share in one step, as a factor, and seconds between two steps.
STEP: Final = 0.1
HOLD_S: Final = 2.0
#: Differences from the mean up to this are left alone.
DEAD_BAND: Final = 0.1
#: Nodes this idle are not told apart.
IDLE: Final = 0.25
#: Fewer connections a node than this say nothing.
FEW_CONNECTIONS: Final = 32
#: A difference of connections counts half as much as one of processors: most connections wait.
CONNECTIONS_PART: Final = 0.5
#: Clients in the accept queue that count like a whole busy machine.
QUEUE_FULL: Final = 64
#: Seconds over which loads are smoothed.
SMOOTH_S: Final = 3.0


def pressure(load: Load) -> float:
    """How busy a node is: 0.0 idle, 1.0 all processors in use, up to 2.0 with clients that nobody accepts."""
    return load.cpu + min(1.0, load.accept_queue / QUEUE_FULL)


@attrs.define
class _Smoothed:
    """An average that forgets (time constant ``SMOOTH_S``)."""

    value: float | None = None

    def add(self, value: float, passed_s: float) -> float:
        old = self.value
        self.value = value if old is None else old + (value - old) * (1 - math.exp(-passed_s / SMOOTH_S))
        return self.value


class Share:
    """The share of one node.

    :param name: of this node.
    :param weights: what the configuration gives to every node now.
    :param feedback: follow the load.
    :param slow_start_s: duration of the ramp after :meth:`begin`.
    :ivar value: now, in thousandths.
    """

    def __init__(
        self, *, name: str, weights: Callable[[], Mapping[str, int]], feedback: bool, slow_start_s: float
    ) -> None:
        self.value = WHOLE
        self._name = name
        self._weights = weights
        self._feedback = feedback
        self._slow_start_s = slow_start_s
        self._factor = 1.0
        self._began: float | None = None
        self._seen: float | None = None
        self._stepped = -math.inf
        self._excess = _Smoothed()
        self._ever = False

    def follow(self, *, feedback: bool, slow_start_s: float) -> None:
        """Be computed like this from the next step on; without feedback the whole weight is taken again."""
        self._slow_start_s = slow_start_s
        if feedback != self._feedback:
            self._feedback = feedback
            self._factor = 1.0
        if not slow_start_s:
            self._began = None

    def begin(self, members: Sequence[NodeReport], now: float) -> None:
        """New clients come from now on: the node has started, or its draining was ended."""
        self._factor = 1.0
        self._excess = _Smoothed()
        self._began = now if self._slow_start_s and self._others_carry(members) else None
        self._stepped = now
        self.value = self._wanted(now)

    @property
    def starting(self) -> bool:
        """Is the slow start still under way?"""
        return self._began is not None

    def observe(self, members: Sequence[NodeReport], now: float) -> bool:
        """What all nodes say now; has our share changed?"""
        passed = now - self._seen if self._seen is not None else HOLD_S
        self._seen = now
        peers = [report for report in members if report.accepting and not report.draining]
        own = next((report for report in peers if report.name == self._name), None)
        if own is None:
            return False
        excess = self._excess.add(self._difference(own, peers), passed)
        if now - self._stepped < HOLD_S:
            return False
        if self._began is not None and now - self._began >= self._slow_start_s:
            self._began = None
        elif self._began is None and self._feedback:
            self._step(excess, peers)
        wanted = self._wanted(now)
        if wanted == self.value:
            return False
        self.value = wanted
        self._stepped = now
        return True

    def _others_carry(self, members: Sequence[NodeReport]) -> bool:
        """Is there somebody to take what we do not? Nodes that were started together have nobody to wait for."""
        own = next((report for report in members if report.name == self._name), None)
        together = own.incarnation - self._slow_start_s * 1e9 if own is not None and not self._ever else math.inf
        self._ever = True
        return any(
            report.accepting and not report.draining and report.name != self._name and report.incarnation < together
            for report in members
        )

    def _difference(self, own: NodeReport, peers: Sequence[NodeReport]) -> float:
        """How much busier we are than the mean: 0.5 is half as busy again."""
        configured = self._weights()

        def pressed(report: NodeReport) -> float:
            # Who was given another weight by hand is meant to be as much less busy, or more.
            return pressure(report.load) * configured.get(report.name, report.weight) / max(1, report.weight)

        pressures = [pressed(report) for report in peers]
        mean = sum(pressures) / len(pressures)
        busier = (pressed(own) - mean) / max(mean, IDLE)
        connections = [report.load.connections / max(1, report.weight) for report in peers]
        mean = sum(connections) / len(connections)
        if sum(report.load.connections for report in peers) >= FEW_CONNECTIONS * len(peers):
            more = own.load.connections / max(1, own.weight) / mean - 1
            busier += CONNECTIONS_PART * max(-1.0, min(1.0, more))
        return busier

    def _step(self, excess: float, peers: Sequence[NodeReport]) -> None:
        change = 1.0
        if abs(excess) > DEAD_BAND:
            change = max(1 - STEP, min(1 + STEP, 1 - excess / 2))
        # All falling together is nobody's gain: whoever is on top rises, and the others with it.
        top = max(report.share for report in peers) / WHOLE
        if top < 1:
            change *= min(1 + STEP / 2, 1 / top)
        self._factor = max(FLOOR, min(1.0, self._factor * max(1 - STEP, min(1 + STEP, change))))

    def _wanted(self, now: float) -> int:
        ramp = 1.0
        if self._began is not None:
            ramp = FLOOR + (1 - FLOOR) * min(1.0, (now - self._began) / self._slow_start_s)
        return max(1, round(WHOLE * self._factor * ramp))
