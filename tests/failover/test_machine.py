"""The VRRP state machine, by the RFC's own sections."""

from __future__ import annotations

from ipaddress import IPv4Address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.failover.machine import (
    Advertise,
    Announce,
    Contested,
    Forward,
    Machine,
    NeverStarted,
    NobodyTook,
    OwnerSilent,
    ReleaseAddresses,
    State,
    TakeAddresses,
    WasFrozen,
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


def active(priority: int = 100, since: float = 8.5) -> Machine:
    made = machine(priority)
    made.start(since - made.active_down_interval_s)
    made.tick(since)
    assert made.state is State.ACTIVE
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
        self.assertEqual(machine(255).start(0.0), [Forward(), Advertise(255), Announce(), TakeAddresses()])

    def test_hears_nothing_before(self) -> None:
        """An event before the start is a mistake of the program, and refused."""
        self.assertRaises(NeverStarted, machine().received, said(1), LOWER, 0.0)

    def test_starts_once(self) -> None:
        """A second start changes nothing."""
        made = active()
        self.assertEqual(made.start(9.0), [])
        self.assertIs(made.state, State.ACTIVE)


class IntervalTests(SynchronousTestCase):
    """The interval of advertisements (§6.4.3)."""

    def test_late_ticks_do_not_add_up(self) -> None:
        """The interval is kept though each advertisement goes out a little late: backups count on it."""
        made = active()
        assert made.deadline is not None
        first = made.deadline
        for _ in range(10):
            made.tick(made.deadline + 0.02)
        self.assertAlmostEqual(made.deadline, first + 10 * made.interval_s)


class BackupTests(SynchronousTestCase):
    """Backup (§6.4.2)."""

    def test_silence_makes_active(self) -> None:
        """When nobody advertised until the deadline, the addresses are ours: other nodes hear it first (§6.4.2)."""
        made = backup()
        assert made.deadline is not None
        self.assertEqual(made.tick(made.deadline - 0.01), [])
        self.assertEqual(made.tick(made.deadline), [Forward(), Advertise(100), Announce(), TakeAddresses()])
        self.assertEqual((made.state, made.owner), (State.ACTIVE, OWN))

    def test_who_fell_silent(self) -> None:
        """Taking over from an owner that was heard and no longer is, it is said who that was: after nodes and
        neighbours were told, before the addresses are added."""
        made = backup()
        made.received(said(150), HIGHER, 2.0)
        assert made.deadline is not None
        self.assertEqual(
            made.tick(made.deadline), [Forward(), Advertise(100), Announce(), OwnerSilent(HIGHER), TakeAddresses()]
        )

    def test_a_living_owner_is_not_silent(self) -> None:
        """Nobody fell silent where a lower owner is preempted, or one has said farewell."""
        for last in (50, 0):
            made = backup()
            made.received(said(150), HIGHER, 0.5)
            for now in (1.0, 2.0, 3.0, 4.0):
                made.received(said(last), LOWER, now)
                effects = made.tick(now + 0.9)
                if effects:
                    break
            self.assertEqual(effects[0], Forward())
            self.assertNotIn(OwnerSilent, [type(effect) for effect in effects])

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
        self.assertEqual(made.received(said(150), HIGHER, 9.0)[0], ReleaseAddresses())
        self.assertEqual((made.state, made.owner), (State.BACKUP, HIGHER))

    def test_the_higher_hears_of_it(self) -> None:
        """Whoever is right may not have heard of the other owner: it must, to tell those neighbours who believed it."""
        wrong = active(since=8.0)
        right = Machine(router_id=1, priority=150, interval_s=1.0, source=HIGHER)
        right.start(8.5 - right.active_down_interval_s)
        right.tick(8.5)
        (last,) = [each for each in wrong.received(said(150), HIGHER, 9.0) if isinstance(each, Advertise)]
        self.assertIn(Contested(), right.received(said(last.priority), OWN, 9.0))
        self.assertIs(right.state, State.ACTIVE)
        # One that has taken the addresses from an owner that hands them over has told them already.
        leaving = active()
        leaving.hand_over(9.0)
        self.assertEqual(leaving.received(said(50), LOWER, 9.0), [ReleaseAddresses()])

    def test_lower_priority_is_told(self) -> None:
        """A lower one hears us at once, and neighbours who believed it are to hear where the addresses are."""
        self.assertEqual(active().received(said(50), LOWER, 9.0), [Advertise(100), Contested()])

    def test_a_flood_provokes_no_flood(self) -> None:
        """However many lower ones are heard, we say it once an interval."""
        made = active()
        answers = [effect for _ in range(1000) for effect in made.received(said(50), LOWER, 9.0)]
        self.assertEqual(answers, [Advertise(100), Contested()])
        self.assertEqual(made.received(said(50), LOWER, 10.0), [Advertise(100), Contested()])

    def test_equal_priority_goes_by_address(self) -> None:
        """The higher address stays."""
        self.assertNotIn(ReleaseAddresses(), active().received(said(100), LOWER, 9.0))
        self.assertIn(ReleaseAddresses(), active().received(said(100), HIGHER, 9.0))

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


class HandoverTests(SynchronousTestCase):
    """Moving the addresses on purpose."""

    def test_keeps_until_taken(self) -> None:
        """The addresses are released when the successor is heard, not before, though its priority is lower."""
        made = active(priority=200, since=49.5)
        self.assertEqual(made.hand_over(50.0), [Advertise(0)])
        self.assertIs(made.state, State.ACTIVE)
        self.assertEqual(made.received(said(50), LOWER, 50.5), [ReleaseAddresses()])
        self.assertEqual((made.state, made.owner, made.leaving), (State.BACKUP, LOWER, False))

    def test_is_not_taken_back(self) -> None:
        """Whoever handed over does not preempt its successor, and still takes over when that one dies."""
        made = active(priority=200, since=49.5)
        made.hand_over(50.0)
        for now in (50.5, 51.5, 52.5, 53.5, 54.5, 55.5):
            made.received(said(50), LOWER, now)
            self.assertEqual(made.tick(now + 0.9), [])
        assert made.deadline is not None
        self.assertIn(TakeAddresses(), made.tick(made.deadline))

    def test_nobody_there(self) -> None:
        """When nobody takes them, the addresses stay and are advertised again."""
        made = active(since=49.5)
        made.hand_over(50.0)
        said_so: list[object] = []
        while made.leaving:
            assert made.deadline is not None
            said_so += made.tick(made.deadline)
        self.assertEqual(said_so[-2:], [NobodyTook(), Advertise(100)])
        self.assertIs(made.state, State.ACTIVE)

    def test_the_lowest_gets_its_turn(self) -> None:
        """Repeated invitations do not keep a backup of priority 1 from taking."""
        owner, heir = active(200, since=49.5), backup(1)
        heir.received(said(200), HIGHER, 49.9)
        effects = owner.hand_over(50.0)
        now = 50.0
        while now < 54.0 and heir.state is State.BACKUP:
            if Advertise(0) in effects:
                heir.received(said(0), HIGHER, now)
            now += 0.05
            effects = owner.tick(now)
            heir.tick(now)
        self.assertIs(heir.state, State.ACTIVE)
        self.assertTrue(owner.leaving)

    def test_claim(self) -> None:
        """A claiming backup advertises more than the owner, which therefore yields."""
        made, owner = backup(100), active(200, since=2.0)
        made.received(said(200), HIGHER, 2.0)
        self.assertEqual(made.claim(2.1), [Forward(), Advertise(201), Announce(), TakeAddresses()])
        self.assertEqual(owner.received(said(201), LOWER, 2.1), [ReleaseAddresses(), Advertise(200), Contested()])

    def test_claim_ends(self) -> None:
        """Who loses what it claimed has its own priority again."""
        made = backup(100)
        made.received(said(200), HIGHER, 2.0)
        made.claim(2.1)
        made.received(said(254), HIGHER, 3.0)
        self.assertEqual((made.state, made.priority), (State.BACKUP, 100))


class FitnessTests(SynchronousTestCase):
    """A node that is worth less, or nothing, for a while."""

    def test_suspended_owner(self) -> None:
        """It gives up at once, and the others need not wait for its silence."""
        made = active()
        self.assertEqual(made.suspend(), [ReleaseAddresses(), Advertise(0)])
        self.assertEqual((made.suspended, made.deadline), (True, None))
        self.assertEqual(made.tick(100.0), [])

    def test_suspended_hears_who_owns(self) -> None:
        """It still knows who owns the addresses, and may not claim them."""
        made = backup()
        made.suspend()
        self.assertEqual(made.received(said(50), LOWER, 2.0), [])
        self.assertEqual((made.owner, made.claim(2.0), made.start(2.0)), (LOWER, [], []))

    def test_resumes_as_at_the_start(self) -> None:
        """Fit again, it waits; also with priority 100 against a silent segment."""
        made = active()
        made.suspend()
        self.assertEqual(made.resume(20.0), [])
        self.assertIs(made.state, State.BACKUP)
        self.assertAlmostEqual(made.deadline or 0, 23.0 + 156 / 256)
        self.assertEqual(made.resume(21.0), [])

    def test_adjusted_owner_says_so(self) -> None:
        """The others learn a new priority with the next packet, which is now."""
        made = active(200)
        self.assertEqual(made.adjust(150, 9.0), [Advertise(150)])
        self.assertEqual(made.adjust(150, 9.0), [])

    def test_adjusted_backup_is_silent(self) -> None:
        """A backup has nothing to say; its skew is another one."""
        made = backup(200)
        self.assertEqual(made.adjust(100, 1.0), [])
        made.received(said(220), HIGHER, 2.0)
        self.assertAlmostEqual(made.deadline or 0, 5.0 + 156 / 256)

    def test_a_claim_ends_when_the_node_is_worth_less(self) -> None:
        """What was claimed with a borrowed priority is not kept by a node that fails."""
        made = backup(100)
        made.received(said(200), HIGHER, 2.0)
        made.claim(2.1)
        self.assertEqual(made.adjust(50, 3.0), [Advertise(50)])

    def test_owner_of_255_takes_back(self) -> None:
        """Priority 255 preempts whatever is configured (§6.1)."""
        made = backup(254, preempt=False)
        made.adjust(255, 0.0)
        before = made.deadline
        made.received(said(200), HIGHER, 2.0)
        self.assertEqual(made.deadline, before)


class PreemptDelayTests(SynchronousTestCase):
    """A node that returns leaves the addresses where they are for a while."""

    def test_waits(self) -> None:
        """The owner of lower priority is respected for the delay, then no longer."""
        made = Machine(router_id=1, priority=100, interval_s=1.0, source=OWN, preempt_delay_s=10.0)
        made.start(0.0)
        taken = []
        for second in range(1, 30):
            made.received(said(50), LOWER, float(second))
            if TakeAddresses() in made.tick(second + 0.5):
                taken.append(second)
        self.assertEqual(len(taken), 1)
        self.assertTrue(11 <= taken[0] <= 15, taken)


class FrozenTests(SynchronousTestCase):
    """A process that stood still does not fight when it wakes up."""

    def test_active_gives_up(self) -> None:
        """After more than the others' patience, the addresses go first; then it waits as at the start."""
        made = active()
        assert made.deadline is not None
        now = made.deadline + 10
        self.assertEqual(made.tick(now), [ReleaseAddresses(), WasFrozen(10.0)])
        self.assertEqual(made.tick(now + 3), [])
        self.assertIs(made.state, State.BACKUP)

    def test_active_does_not_fight(self) -> None:
        """It gives up also when the first thing that it hears is its successor of lower priority."""
        made = active()
        assert made.deadline is not None
        now = made.deadline + 10
        self.assertEqual(made.received(said(50), LOWER, now), [ReleaseAddresses(), WasFrozen(10.0)])
        self.assertEqual((made.state, made.owner), (State.BACKUP, LOWER))

    def test_backup_asks_again(self) -> None:
        """A backup that slept cannot know that nobody advertised."""
        made = backup()
        assert made.deadline is not None
        now = made.deadline + 10
        self.assertEqual(made.tick(now), [WasFrozen(10.0)])
        self.assertGreater(made.deadline, now + 3)

    def test_a_little_late(self) -> None:
        """A late tick within the others' patience is an ordinary one."""
        made = active()
        assert made.deadline is not None
        self.assertEqual(made.tick(made.deadline + 1.0), [Advertise(100)])
