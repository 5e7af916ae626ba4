"""Shares: slow starts, and following the load."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import pairwise

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.scheduler.feedback import FeedbackService
from lbarray.scheduler.weights import FLOOR, HOLD_S, STEP, WHOLE, Share, pressure
from lbarray.telemetry.counters import Counters
from lbarray.testing import MemoryMembers
from lbarray.values import Load, NodeReport

HOUR_NS = 3600 * 10**9


def report(name: str, *, load: Load | None = None, share: int = WHOLE, **more: object) -> NodeReport:
    fields = {"accepting": True, "incarnation": HOUR_NS, **more}
    return NodeReport(name=name, address=IPv4Address("192.0.2.1"), load=load or Load(), share=share, **fields)  # type: ignore[arg-type]


CONFIGURED = dict.fromkeys("abc", 100)


def make_share(name: str = "a", *, feedback: bool = True, slow_start_s: float = 10.0) -> Share:
    return Share(name=name, weights=lambda: CONFIGURED, feedback=feedback, slow_start_s=slow_start_s)


class Array:
    """Nodes of different speed that share a load by their shares, and each steers itself.

    :ivar speed: what of the array's whole load would keep a node's processors busy alone.
    :ivar weights: what the nodes have now; all have 100 in the configuration.
    """

    def __init__(self, speed: dict[str, float]) -> None:
        self.speed = speed
        self.weights = dict(CONFIGURED)
        self.shares = {name: make_share(name) for name in speed}
        self.now = 0.0

    def cpu(self, offered: float) -> dict[str, float]:
        parts = {name: share.value * self.weights[name] for name, share in self.shares.items()}
        whole = sum(parts.values())
        return {name: min(1.0, offered * part / whole / self.speed[name]) for name, part in parts.items()}

    def run(self, seconds: int, offered: float) -> list[dict[str, int]]:
        """Second by second, the shares."""
        history = []
        for _ in range(seconds):
            self.now += 1.0
            busy = self.cpu(offered)
            reports = [
                report(name, load=Load(cpu=busy[name]), share=share.value, weight=self.weights[name])
                for name, share in self.shares.items()
            ]
            for share in self.shares.values():
                share.observe(reports, self.now)
            history.append({name: share.value for name, share in self.shares.items()})
        return history


class FeedbackTests(SynchronousTestCase):
    """Shares that follow the load."""

    def test_equal_nodes_stay(self) -> None:
        """Where all are equally busy, nothing moves."""
        array = Array({"a": 1.0, "b": 1.0, "c": 1.0})
        self.assertEqual(array.run(60, 2.0)[-1], dict.fromkeys("abc", WHOLE))

    def test_slower_node(self) -> None:
        """A node of half the speed ends with about half the share, and then stays there."""
        array = Array({"a": 1.0, "b": 1.0, "c": 0.5})
        history = array.run(180, 1.5)
        self.assertTrue(450 <= history[-1]["c"] <= 650, history[-1])
        self.assertGreaterEqual(min(history[-1]["a"], history[-1]["b"]), 900)
        self.assertEqual(history[-1], history[-30])
        busy = array.cpu(1.5).values()
        self.assertLess(max(busy) / min(busy), 1.3)

    def test_recovers(self) -> None:
        """A node that was slow for a while gets its share back when its processors are free again."""
        array = Array({"a": 1.0, "b": 1.0, "c": 0.3})
        self.assertLess(array.run(120, 1.5)[-1]["c"], 600)
        array.speed["c"] = 1.0
        self.assertGreater(array.run(180, 1.5)[-1]["c"], 850)

    def test_weight_by_hand(self) -> None:
        """Who is given half of its weight by hand is less busy from then on, and is left so."""
        array = Array(dict.fromkeys("abc", 1.0))
        array.weights["c"] = 50
        self.assertEqual(array.run(120, 1.5)[-1], dict.fromkeys("abc", WHOLE))
        # Unlike one that is slow: what differs from the order is still made even.
        array.speed["c"] = 0.5
        self.assertLess(array.run(120, 1.5)[-1]["c"], 800)

    @settings(deadline=None, max_examples=20)
    @given(
        st.lists(st.floats(0.05, 4.0), min_size=3, max_size=3), st.lists(st.floats(0.0, 6.0), min_size=1, max_size=5)
    )
    def test_bounded(self, speeds: list[float], offers: list[float]) -> None:
        """Whatever the load does, a share moves by at most a tenth in a step, with a pause after it, and never falls
        below the floor."""
        array = Array(dict(zip("abc", speeds, strict=True)))
        history = [dict.fromkeys("abc", WHOLE)]
        for offered in offers:
            history += array.run(20, offered)
        for name in "abc":
            values = [entry[name] for entry in history]
            steps = [at for at in range(1, len(values)) if values[at] != values[at - 1]]
            self.assertTrue(all(later - earlier >= HOLD_S for earlier, later in pairwise(steps)))
            for at in steps:
                self.assertLessEqual(abs(values[at] / values[at - 1] - 1), STEP + 2 / values[at - 1])
            self.assertGreaterEqual(min(values), FLOOR * WHOLE)

    def test_idle_arrays_are_left_alone(self) -> None:
        """One percent beside half a percent is no reason to move anybody."""
        array = Array({"a": 1.0, "b": 0.5, "c": 0.5})
        self.assertEqual(array.run(60, 0.03)[-1], dict.fromkeys("abc", WHOLE))

    def observed(self, own: Load, others: Load, feedback: bool = True) -> int:
        share = make_share(feedback=feedback)
        for second in range(10):
            share.observe([report("a", load=own), report("b", load=others), report("c", load=others)], float(second))
        return share.value

    def test_connections(self) -> None:
        """Of nodes that are equally busy, the one with far more open connections gets fewer new ones."""
        self.assertLess(self.observed(Load(connections=400), Load(connections=100)), WHOLE)

    def test_few_connections_say_nothing(self) -> None:
        """Four beside one is chance."""
        self.assertEqual(self.observed(Load(connections=4), Load(connections=1)), WHOLE)

    def test_accept_queue(self) -> None:
        """Clients that nobody accepts count, though the processors look idle."""
        self.assertLess(self.observed(Load(accept_queue=100), Load()), WHOLE)
        self.assertEqual(pressure(Load(cpu=0.5, accept_queue=32)), 1.0)

    def test_turned_off(self) -> None:
        """Without feedback the load changes nothing."""
        self.assertEqual(self.observed(Load(cpu=1.0), Load(), feedback=False), WHOLE)

    def test_drained_nodes_do_not_count(self) -> None:
        """The mean is of those who take clients."""
        share = make_share()
        for second in range(10):
            idle = [report(name, draining=True) for name in "bc"]
            share.observe([report("a", load=Load(cpu=0.9)), *idle], float(second))
        self.assertEqual(share.value, WHOLE)


class SlowStartTests(SynchronousTestCase):
    """A node that joins others grows into its share."""

    def setUp(self) -> None:
        self.share = make_share()
        self.others = [report("b"), report("c")]

    def ramp(self, began: float, own: NodeReport) -> list[int]:
        self.share.begin([own, *self.others], began)
        values = [self.share.value]
        for second in range(1, 15):
            own = attrs.evolve(own, share=self.share.value)
            self.share.observe([own, *self.others], began + second)
            values.append(self.share.value)
        return values

    def test_ramp(self) -> None:
        """From a tenth to all in the configured time, never down."""
        values = self.ramp(0.0, report("a", incarnation=2 * HOUR_NS))
        self.assertEqual((values[0], values[-1]), (100, WHOLE))
        self.assertEqual(values, sorted(values))
        self.assertTrue(400 < values[5] < 600)
        self.assertFalse(self.share.starting)

    def test_started_together(self) -> None:
        """When a whole array is switched on, nobody waits for the others."""
        self.assertEqual(set(self.ramp(0.0, report("a", incarnation=HOUR_NS + 10**9))), {WHOLE})

    def test_alone(self) -> None:
        """Nor does a node with nobody beside it."""
        self.others = []
        self.assertEqual(set(self.ramp(0.0, report("a", incarnation=2 * HOUR_NS))), {WHOLE})

    def test_after_draining(self) -> None:
        """The end of draining is a start, also between nodes that were switched on together."""
        self.ramp(0.0, report("a"))
        self.assertEqual(self.ramp(100.0, report("a"))[0], 100)

    def test_turned_off(self) -> None:
        """Without it a node starts with all of its share."""
        self.share = make_share(slow_start_s=0.0)
        self.assertEqual(set(self.ramp(0.0, report("a", incarnation=2 * HOUR_NS))), {WHOLE})


class FeedbackServiceTests(SynchronousTestCase):
    """The rhythm."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.members = MemoryMembers(report("a", incarnation=2 * HOUR_NS), report("b"))
        self.measure: Callable[[], Load] = lambda: Load(cpu=0.9)
        self.taking = False
        self.changes = 0
        self.service = FeedbackService(
            clock=self.clock,
            share=make_share(),
            members=self.members,
            measure=self.measured,
            taking=lambda: self.taking,
            changed=self.change,
            counters=Counters(),
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def measured(self) -> Load:
        return self.measure()

    def change(self) -> None:
        self.changes += 1
        own, other = self.members.members()
        self.members.become(attrs.evolve(own, share=self.service.share), other)

    def test_slow_start_begins_when_clients_come(self) -> None:
        """Not when the process starts: what it does before that takes as long as it takes."""
        self.clock.pump([1.0] * 20)
        self.taking = True
        self.service.look()
        self.assertEqual(self.service.share, 100)
        self.clock.pump([1.0] * 12)
        self.assertEqual(self.service.share, WHOLE)
        self.assertGreater(self.changes, 3)

    def test_load_is_what_was_measured(self) -> None:
        """Heartbeats say the last measurement, however often they are sent."""
        self.assertEqual(self.service.load.cpu, 0.9)

    def test_load_unknown(self) -> None:
        """A kernel that does not tell is complained of once, and serves on."""

        def refuse() -> Load:
            raise SystemRefused("ask for the accept queues")

        self.measure = refuse
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.service.load.cpu, 0.9)
