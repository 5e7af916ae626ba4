"""The machines of several nodes on a segment that loses, delays and repeats: checked as a model.

Whatever happens before, once the segment is quiet there is one owner within the standard's bound, and only one.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.machine import Advertise, Effect, Machine, ReleaseAddresses, State, TakeAddresses
from lbarray.failover.packet import Advertisement

VIPS = (IPv4Address("192.0.2.100"),)
INTERVAL_S = 1.0
#: Longest delay of a packet on the noisy segment, and on the quiet one.
NOISY_S, QUIET_S = 2.5, 0.01


Draw = Callable[..., list[float]]


class Segment:
    """Nodes, and packets under way, in an order of time that the test decides."""

    def __init__(self, priorities: list[int], preempt: bool, draw: Draw | None) -> None:
        self.now = 0.0
        self.holders: set[int] = set()
        self.noise = draw is not None
        self._draw = draw
        self._preempt = preempt
        self._priorities = priorities
        self._count = itertools.count()
        self._packets: list[tuple[float, int, int, int, int]] = []
        self.machines: dict[int, Machine] = {}
        for node in range(len(priorities)):
            self.restart(node)

    @staticmethod
    def address(node: int) -> IPv4Address:
        return IPv4Address(f"192.0.2.{10 + node}")

    def restart(self, node: int) -> None:
        """The process starts (again): whatever it had is forgotten."""
        self.holders.discard(node)
        self.machines[node] = Machine(
            router_id=1,
            priority=self._priorities[node],
            interval_s=INTERVAL_S,
            source=self.address(node),
            preempt=self._preempt,
        )
        self.perform(node, self.machines[node].start(self.now))

    def kill(self, node: int) -> None:
        """It is gone, with what it had."""
        self.machines.pop(node, None)
        self.holders.discard(node)

    def perform(self, node: int, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, TakeAddresses):
                self.holders.add(node)
            elif isinstance(effect, ReleaseAddresses):
                self.holders.discard(node)
            elif isinstance(effect, Advertise):
                for other in self.machines:
                    if other != node:
                        self._send(node, other, effect.priority)

    def _send(self, node: int, other: int, priority: int) -> None:
        delays = [QUIET_S]
        if self.noise and self._draw is not None:
            # Lost, once, or twice; each copy takes its own time.
            delays = self._draw(st.lists(st.floats(0.0, NOISY_S), max_size=2))
        for delay in delays:
            heapq.heappush(self._packets, (self.now + delay, next(self._count), node, other, priority))

    def run(self, until: float) -> None:
        """What happens until then, in its order."""
        while True:
            due = [(machine.deadline, node) for node, machine in self.machines.items() if machine.deadline is not None]
            wake, node = min(due, default=(until + 1, -1))
            arrives = self._packets[0][0] if self._packets else until + 1
            if min(wake, arrives) > until:
                self.now = until
                return
            if arrives <= wake:
                self.now, _, source, target, priority = heapq.heappop(self._packets)
                machine = self.machines.get(target)
                if machine is not None and machine.state is not State.INITIALIZE:
                    said = Advertisement(1, priority, int(INTERVAL_S * 100), VIPS)
                    self.perform(target, machine.received(said, self.address(source), self.now))
            else:
                self.now = max(self.now, wake)
                self.perform(node, self.machines[node].tick(self.now))

    def bound_s(self) -> float:
        """Within which one of the living must own: Active_Down_Interval of the one with the longest skew (§6.1)."""
        return 3 * INTERVAL_S + INTERVAL_S + 2 * QUIET_S


class ElectionTests(SynchronousTestCase):
    """What must always hold."""

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(1, 255), min_size=2, max_size=5), st.booleans(), st.data())
    def test_one_owner_whatever_happened(self, priorities: list[int], preempt: bool, data: st.DataObject) -> None:
        """Loss, delay, repetition, deaths, restarts, handovers and claims; then quiet: exactly one owner remains."""
        segment = Segment(priorities, preempt, data.draw)
        nodes = list(range(len(priorities)))
        for _ in range(data.draw(st.integers(0, 6))):
            segment.run(segment.now + data.draw(st.floats(0.0, 6.0)))
            node = data.draw(st.sampled_from(nodes))
            what = data.draw(st.sampled_from(["kill", "restart", "hand over", "claim", "suspend", "resume", "lower"]))
            machine = segment.machines.get(node)
            if what == "restart" or machine is None:
                segment.restart(node)
            elif what == "kill":
                segment.kill(node)
            elif what == "hand over":
                segment.perform(node, machine.hand_over(segment.now))
            elif what == "claim":
                segment.perform(node, machine.claim(segment.now))
            elif what == "suspend":
                segment.perform(node, machine.suspend())
            elif what == "resume":
                segment.perform(node, machine.resume(segment.now))
            else:
                segment.perform(node, machine.adjust(max(1, priorities[node] - 50), segment.now))
        if not segment.machines:
            segment.restart(0)
        fit = [node for node, machine in segment.machines.items() if not machine.suspended]
        segment.noise = False
        # What is still under way arrives, a handover that is under way ends, and then the bound of the standard.
        segment.run(segment.now + NOISY_S + 5 * INTERVAL_S + segment.bound_s())
        for _ in range(40):
            segment.run(segment.now + INTERVAL_S / 4)
            self.assertEqual(len(segment.holders), min(1, len(fit)), f"owners {segment.holders} of {fit}")

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.integers(1, 254), min_size=2, max_size=5), st.floats(0.0, 1.0))
    def test_a_dead_owner_is_replaced_in_time(self, priorities: list[int], moment: float) -> None:
        """On a quiet segment the highest takes over within three intervals and its skew (RFC 9568 §6.1)."""
        segment = Segment(priorities, True, None)
        segment.run(20.0 + moment)
        [owner] = segment.holders
        heir = max((machine for node, machine in segment.machines.items() if node != owner), key=lambda m: m.priority)
        segment.kill(owner)
        segment.run(segment.now + heir.active_down_interval_s + 2 * QUIET_S)
        self.assertGreaterEqual(len(segment.holders), 1)
        # Of equals, two may have woken up in the same moment: the lower address yields to the first advertisement.
        segment.run(segment.now + 2 * QUIET_S)
        self.assertEqual(len(segment.holders), 1)
        self.assertEqual(segment.machines[next(iter(segment.holders))].priority, heir.priority)

    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.integers(1, 254), min_size=2, max_size=5))
    def test_the_highest_owns(self, priorities: list[int]) -> None:
        """With preemption, of nodes that start together, the highest priority owns; of equals, one."""
        segment = Segment(priorities, True, None)
        segment.run(20.0)
        [owner] = segment.holders
        self.assertEqual(priorities[owner], max(priorities))
