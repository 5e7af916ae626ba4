"""The VRRP state machine, by the RFC's own sections."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.machine import (
    Advertise,
    Announce,
    Machine,
    NeverStarted,
    ReleaseAddresses,
    State,
    TakeAddresses,
)
from lbarray.failover.packet import Advertisement

OWN, LOWER, HIGHER = IPv4Address("192.0.2.5"), IPv4Address("192.0.2.4"), IPv4Address("192.0.2.6")
VIPS = (IPv4Address("192.0.2.100"),)


def machine(priority: int = 100, *, preempt: bool = True) -> Machine:
    return Machine(router_id=1, priority=priority, interval_s=1.0, source=OWN, preempt=preempt)


def said(priority: int, interval_cs: int = 100) -> Advertisement:
    return Advertisement(1, priority, interval_cs, VIPS)


def backup(priority: int = 100, *, preempt: bool = True) -> Machine:
    made = machine(priority, preempt=preempt)
    made.start(0.0)
    return made


def active(priority: int = 100) -> Machine:
    made = backup(priority)
    assert made.deadline is not None
    made.tick(made.deadline)
    return made


class StartTests(SynchronousTestCase):
    """Initialize (§6.4.1)."""

    def test_becomes_backup(self) -> None:
        """A node waits three intervals and its skew before it takes anything."""
        made = machine(priority=200)
        self.assertEqual(made.start(10.0), [])
        self.assertIs(made.state, State.BACKUP)
        self.assertAlmostEqual(made.deadline or 0, 10.0 + 3 + 56 / 256)

    def test_owner_takes_at_once(self) -> None:
        """Priority 255 owns the addresses and does not wait."""
        self.assertEqual(machine(255).start(0.0), [TakeAddresses(), Advertise(255), Announce()])

    def test_hears_nothing_before(self) -> None:
        """An event before the start is a mistake of the program, and refused."""
        self.assertRaises(NeverStarted, machine().received, said(1), LOWER, 0.0)

    def test_starts_once(self) -> None:
        """A second start changes nothing."""
        made = active()
        self.assertEqual(made.start(9.0), [])
        self.assertIs(made.state, State.ACTIVE)


class BackupTests(SynchronousTestCase):
    """Backup (§6.4.2)."""

    def test_silence_makes_active(self) -> None:
        """When nobody advertised until the deadline, the addresses are ours: taken first, then told."""
        made = backup()
        assert made.deadline is not None
        self.assertEqual(made.tick(made.deadline - 0.01), [])
        self.assertEqual(made.tick(made.deadline), [TakeAddresses(), Advertise(100), Announce()])
        self.assertEqual((made.state, made.owner), (State.ACTIVE, OWN))

    def test_higher_priority_renews(self) -> None:
        """An owner of higher priority is waited for anew."""
        made = backup()
        made.received(said(150), HIGHER, 2.0)
        self.assertAlmostEqual(made.deadline or 0, 2.0 + 3 + 156 / 256)
        self.assertEqual(made.owner, HIGHER)

    def test_learns_the_interval(self) -> None:
        """The owner's interval counts, not ours."""
        made = backup()
        made.received(said(150, interval_cs=10), HIGHER, 2.0)
        self.assertAlmostEqual(made.deadline or 0, 2.0 + 0.1 * (3 + 156 / 256))

    def test_lower_priority_is_preempted(self) -> None:
        """An owner of lower priority does not renew our patience."""
        made = backup()
        before = made.deadline
        self.assertEqual(made.received(said(50), LOWER, 2.0), [])
        self.assertEqual(made.deadline, before)

    def test_no_preemption(self) -> None:
        """Without preemption an owner of lower priority stays."""
        made = backup(preempt=False)
        made.received(said(50), LOWER, 2.0)
        self.assertAlmostEqual(made.deadline or 0, 5.0 + 156 / 256)

    def test_leaving_owner(self) -> None:
        """A leaving owner's advertisement starts the skew timer, not a take-over."""
        made = backup(priority=200)
        self.assertEqual(made.received(said(0), HIGHER, 5.0), [])
        self.assertAlmostEqual(made.deadline or 0, 5.0 + 56 / 256)

    def test_the_higher_wakes_first(self) -> None:
        """Of two backups the one of higher priority has the shorter skew."""
        self.assertLess(backup(200).deadline or 0, backup(100).deadline or 0)


class ActiveTests(SynchronousTestCase):
    """Active (§6.4.3)."""

    def test_advertises_each_interval(self) -> None:
        """Once per interval, no oftener."""
        made = active()
        assert made.deadline is not None
        due = made.deadline
        self.assertEqual(made.tick(due - 0.001), [])
        self.assertEqual(made.tick(due), [Advertise(100)])
        self.assertAlmostEqual(made.deadline, due + 1.0)

    def test_yields_to_higher_priority(self) -> None:
        """It releases the addresses and waits."""
        made = active()
        self.assertEqual(made.received(said(150), HIGHER, 9.0), [ReleaseAddresses()])
        self.assertEqual((made.state, made.owner), (State.BACKUP, HIGHER))

    def test_lower_priority_is_ignored(self) -> None:
        """Whoever is lower will yield to us."""
        self.assertEqual(active().received(said(50), LOWER, 9.0), [])

    def test_equal_priority_goes_by_address(self) -> None:
        """The higher address stays."""
        self.assertEqual(active().received(said(100), LOWER, 9.0), [])
        self.assertEqual(active().received(said(100), HIGHER, 9.0), [ReleaseAddresses()])

    def test_another_one_leaves(self) -> None:
        """Another owner that leaves is answered at once, and neighbours told anew."""
        self.assertEqual(active().received(said(0), LOWER, 9.0), [Advertise(100), Announce()])

    def test_stop_says_so(self) -> None:
        """The addresses go first, then priority 0 lets the next one hurry."""
        self.assertEqual(active().stop(), [ReleaseAddresses(), Advertise(0)])

    def test_backup_stops_silently(self) -> None:
        """Who owns nothing has nothing to say."""
        made = backup()
        self.assertEqual(made.stop(), [])
        self.assertIsNone(made.deadline)

    def test_step_down(self) -> None:
        """Handing over leaves us a backup that waits for the whole interval."""
        made = active(priority=200)
        self.assertEqual(made.step_down(50.0), [ReleaseAddresses(), Advertise(0)])
        self.assertIs(made.state, State.BACKUP)
        self.assertGreater(made.deadline or 0, 53.0)
        self.assertEqual(backup().step_down(1.0), [])


class ElectionTests(SynchronousTestCase):
    """Several machines that hear each other."""

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.integers(1, 254), min_size=2, max_size=5),
        st.lists(st.floats(0.0, 2.0), min_size=5, max_size=5),
        st.data(),
    )
    def test_one_owner_remains(self, priorities: list[int], starts: list[float], data: st.DataObject) -> None:
        """Whatever the priorities, starts and deaths: in steady state exactly one owns the addresses."""
        addresses = [IPv4Address(f"192.0.2.{10 + place}") for place in range(len(priorities))]
        machines = {
            address: Machine(router_id=1, priority=priority, interval_s=1.0, source=address)
            for address, priority in zip(addresses, priorities, strict=True)
        }
        waiting = dict(zip(addresses, starts, strict=False))
        dead = data.draw(st.sets(st.sampled_from(addresses), max_size=len(addresses) - 1))
        holders: set[IPv4Address] = set()
        now = 0.0

        def perform(source: IPv4Address, effects: list[object]) -> None:
            for effect in effects:
                if isinstance(effect, TakeAddresses):
                    holders.add(source)
                elif isinstance(effect, ReleaseAddresses):
                    holders.discard(source)
                elif isinstance(effect, Advertise):
                    for other, heard in machines.items():
                        if other != source and heard.state is not State.INITIALIZE:
                            perform(other, list(heard.received(said(effect.priority), source, now)))

        for step in range(600):
            now = step / 20
            if step == 300:
                for address in dead:
                    del machines[address]
                    holders.discard(address)
            for address in list(machines):
                if address in waiting and now >= waiting[address]:
                    del waiting[address]
                    perform(address, list(machines[address].start(now)))
                perform(address, list(machines[address].tick(now)))
        # Of equals, the one that got there first stays (§6.4.2).
        self.assertEqual(len(holders), 1)
        self.assertEqual(machines[holders.pop()].priority, max(each.priority for each in machines.values()))
