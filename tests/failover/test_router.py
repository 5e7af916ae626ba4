"""One virtual router on one node: when what its machine decides is done."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.routers import VirtualRouter
from lbarray.failover.announce import Claim, claim_in
from lbarray.failover.duplicates import FORGET_S
from lbarray.failover.machine import State
from lbarray.failover.packet import Advertisement
from lbarray.failover.router import CONTESTED_S, JUDGE_S, LINGER_S, RouterOnNode
from lbarray.failover.tracking import Condition
from lbarray.telemetry.counters import Counters

OWN, OTHER, VIP = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Interface("192.0.2.100/24")
OUR_MAC, THEIR_MAC = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
SPEC = VirtualRouter(
    name="main",
    router_id=51,
    vips=(VIP,),
    priorities={"a": 200},
    interval_s=1.0,
    preempt=True,
    preempt_delay_s=0.0,
    accept=True,
    virtual_mac=False,
)


class Holder:
    """Has the addresses in name only."""

    interface = "eth0"

    def __init__(self) -> None:
        self.parent_mac = OUR_MAC
        self.held = False
        self.followed: tuple[Any, ...] = ()
        self.refuses = ""
        self.renewed = 0

    @property
    def mac(self) -> bytes:
        return self.parent_mac

    def take(self) -> str:
        self.held = not self.refuses
        return self.refuses

    def renew(self) -> None:
        self.renewed += 1

    def follow(self, vips: tuple[Any, ...], interval_s: float, *, having: bool) -> str:
        self.followed = (vips, interval_s, having)
        return self.refuses

    def release(self) -> None:
        self.held = False


class RouterCase(SynchronousTestCase):
    """A node ``a`` of priority 200."""

    spec = SPEC

    def setUp(self) -> None:
        self.clock = Clock()
        self.elsewhere = 0.0
        self.holder = Holder()
        self.sent: list[tuple[int, bytes | None]] = []
        self.frames: list[bytes] = []
        self.waiting: list[Advertisement] = []
        self.forwarded: list[bool] = []
        self.contested: list[float] = []
        self.counters = Counters()
        self.it = self.make(self.spec)
        self.it.start()

    def make(self, spec: VirtualRouter) -> RouterOnNode:
        holder: Any = self.holder
        return RouterOnNode(
            reactor=self.clock,
            spec=spec,
            node_name="a",
            source=OWN,
            holder=holder,
            send=lambda said, mac: self.sent.append((said.priority, mac)),
            send_frame=self.frames.append,
            read_wire=self.read_wire,
            counters=self.counters,
            seconds=lambda: self.clock.seconds() + self.elsewhere,
            refresh_s=60.0,
            detect_duplicates=True,
            changed=lambda: self.forwarded.append(self.it.forwards),
            contested=lambda: self.contested.append(self.clock.seconds()),
        )

    def read_wire(self) -> None:
        while self.waiting:
            self.it.heard(self.waiting.pop(0), OTHER)

    def own(self) -> None:
        """Let the silence make us the owner."""
        self.clock.pump([0.25] * 16)
        self.assertTrue(self.holder.held)

    def hear(self, priority: int) -> None:
        self.it.heard(Advertisement(51, priority, 100, (VIP.ip,)), OTHER)

    def priorities(self) -> list[int]:
        return [priority for priority, _ in self.sent]


class OwnerTests(RouterCase):
    """Taking, keeping and giving up."""

    def test_takes(self) -> None:
        """Silence makes us the owner: addresses, forwarding, word to the others and to neighbours."""
        self.own()
        self.assertTrue(self.it.forwards)
        self.assertEqual(self.priorities()[0], 200)
        claims = {claim_in(frame) for frame in self.frames} - {None}
        self.assertEqual(claims, {Claim(VIP.ip, OUR_MAC)})

    def test_announces_before_the_address_is_there(self) -> None:
        """Once the plane forwards, neighbours are told: the address, for the next who asks, takes longer to have."""
        told: list[tuple[bool, int]] = []
        take = self.holder.take

        def look() -> str:
            told.append((self.it.forwards, len({claim_in(frame) for frame in self.frames} - {None})))
            return take()

        self.holder.take = look  # type: ignore[method-assign]
        self.own()
        self.assertEqual(told, [(True, 1)])

    def test_another_mac_address(self) -> None:
        """When the interface gets another MAC address, neighbours hear of it."""
        self.own()
        self.frames.clear()
        self.it.moved(b"\2\0\0\0\0\x99")
        claims = {claim_in(frame) for frame in self.frames} - {None}
        self.assertEqual(claims, {Claim(VIP.ip, b"\2\0\0\0\0\x99")})
        self.frames.clear()
        self.it.moved(b"\2\0\0\0\0\x99")
        self.assertEqual(self.frames, [])

    def test_renews_and_refreshes(self) -> None:
        """The addresses' lifetimes are renewed each second, and neighbours told once a minute."""
        self.own()
        self.clock.pump([0.5] * 20)
        self.assertGreaterEqual(self.holder.renewed, 9)
        said = len(self.frames)
        self.clock.pump([0.5] * 100)
        self.assertEqual(len(self.frames), said + 2)

    def test_stops_with_everything(self) -> None:
        """Stopping gives the addresses up and leaves no timer behind."""
        self.own()
        self.it.stop()
        self.assertEqual((self.holder.held, self.it.forwards, self.priorities()[-1]), (False, False, 0))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])

    def test_lingers(self) -> None:
        """The VIP goes when the successor is heard; forwarding goes on until neighbours know."""
        self.own()
        self.assertTrue(self.it.step_down())
        self.assertTrue(self.holder.held)
        self.hear(50)
        self.assertEqual((self.holder.held, self.it.forwards), (False, True))
        self.clock.advance(LINGER_S)
        self.assertFalse(self.it.forwards)

    def test_was_parted(self) -> None:
        """Of two owners the one that stays says so to the node at once, and to the neighbours when the node has had a
        moment to hear the others; the one that yields only to the node."""
        self.own()
        self.clock.pump([0.25] * 40)
        self.frames.clear()
        self.hear(50)
        self.assertEqual((len(self.contested), self.frames), (1, []))
        self.clock.advance(CONTESTED_S)
        self.assertEqual({claim.address for claim in map(claim_in, self.frames) if claim}, {VIP.ip})
        self.frames.clear()
        self.hear(250)
        self.clock.advance(1.0)
        self.assertEqual((len(self.contested), self.frames), (2, []))

    def test_old_news_is_heard_first(self) -> None:
        """After a pause, advertisements that wait in the socket count before our own lateness does."""
        self.own()
        self.waiting = [Advertisement(51, 250, 100, (VIP.ip,))]
        self.clock.advance(2.0)
        self.assertEqual((self.it.machine.state, self.it.machine.owner), (State.BACKUP, OTHER))

    def test_frozen_owner(self) -> None:
        """A process that stood still gives the VIP up before anything else, and says so."""
        self.own()
        said = len(self.sent)
        self.clock.advance(30.0)
        self.assertEqual((self.holder.held, len(self.sent)), (False, said))
        self.assertEqual(self.counters.get("vrrp_frozen", "main"), 1)

    def test_a_set_clock_is_no_pause(self) -> None:
        """When the wall clock is set forward, timers come early; the owner stays the owner."""
        self.own()
        self.elsewhere = -3600.0
        self.clock.advance(3600.5)
        self.assertEqual((self.holder.held, self.counters.get("vrrp_frozen", "main")), (True, 0))

    def test_take_over(self) -> None:
        """A backup takes the VIP from its living owner by advertising more."""
        self.hear(220)
        self.assertTrue(self.it.take_over())
        self.assertEqual((self.priorities(), self.holder.held), ([221], True))
        self.assertFalse(self.it.take_over())

    def test_how_long_the_takeover_took(self) -> None:
        """From the last word of the dead owner until the VIP is ours: what operators ask for."""
        self.hear(220)
        self.assertIsNone(self.it.status()["takeover_s"])
        self.clock.pump([0.25] * 16)
        took = self.it.status()["takeover_s"]
        assert isinstance(took, float)
        self.assertTrue(3.0 <= took <= 3.5, took)


class VirtualMacTests(RouterCase):
    """A router with a MAC address of its own."""

    spec = attrs.evolve(SPEC, virtual_mac=True)

    def test_advertises_from_it(self) -> None:
        """Switches learn where it is from the advertisements (RFC 9568 §7.3)."""
        self.own()
        self.assertEqual(self.sent[0], (200, OUR_MAC))


class ConditionTests(RouterCase):
    """What a node knows of itself."""

    CARRIER, SCRIPT = Condition("carrier"), Condition("script disk", 60)

    def test_unfit_owner_gives_up(self) -> None:
        """Without carrier the VIP goes at once and nothing is taken; with it the node waits as at its start."""
        self.own()
        self.it.report(self.CARRIER, False, "eth0 has no carrier")
        self.assertEqual((self.holder.held, self.it.forwards, self.it.status()["state"]), (False, False, "unfit"))
        self.clock.pump([0.5] * 20)
        self.assertFalse(self.holder.held)
        self.it.report(self.CARRIER, True)
        self.assertIs(self.it.machine.state, State.BACKUP)
        self.own()

    def test_weight_lowers_the_priority(self) -> None:
        """A failing script with a weight makes the owner advertise less, at once, and more again when it passes."""
        self.own()
        self.it.report(self.SCRIPT, False, "disk full")
        self.assertEqual(self.priorities()[-1], 140)
        self.it.report(self.SCRIPT, True)
        self.assertEqual(self.priorities()[-1], 200)

    def test_the_same_news_twice(self) -> None:
        """A verdict that is repeated changes nothing and says nothing."""
        self.own()
        self.it.report(self.SCRIPT, False, "disk full")
        said = len(self.sent)
        self.it.report(self.SCRIPT, False, "disk full")
        self.assertEqual(len(self.sent), said)

    def test_addresses_that_cannot_be_had(self) -> None:
        """When the kernel refuses, the others may have them at once; after a while it is tried again."""
        self.holder.refuses = "cannot add 192.0.2.100/24 to eth0"
        self.clock.pump([0.25] * 16)
        self.assertEqual((self.priorities()[-1], self.it.status()["state"]), (0, "unfit"))
        self.holder.refuses = ""
        self.clock.pump([0.5] * 40)
        self.assertTrue(self.holder.held)

    def test_unfit_from_the_start(self) -> None:
        """A node that starts unfit takes nothing before it is fit."""
        it = self.it = self.make(SPEC)
        it.report(self.CARRIER, False, "no carrier")
        it.start()
        self.clock.pump([0.5] * 20)
        self.assertFalse(it.forwards)
        self.assertEqual(it.status()["failing"], {"carrier": "no carrier"})


class DuplicateTests(RouterCase):
    """Strangers with our addresses (RFC 5227)."""

    STRANGER = Claim(VIP.ip, THEIR_MAC)

    def test_asks_at_the_start(self) -> None:
        """Probes go out while we wait, and claim nothing."""
        self.clock.pump([0.25] * 12)
        self.assertEqual(len(self.frames), 3)
        self.assertEqual({claim_in(frame) for frame in self.frames}, {None})

    def test_does_not_take_from_a_stranger(self) -> None:
        """When nobody advertises and somebody answers, the VIP is not taken, and it is said who has it."""
        self.clock.advance(0.5)
        self.it.claimed(self.STRANGER, [])
        self.clock.pump([0.25] * 16)
        self.assertFalse(self.holder.held)
        failing = self.it.status()["failing"]
        assert isinstance(failing, dict)
        self.assertIn("02:00:00:00:00:02", failing["duplicate address"])
        self.assertEqual(self.counters.get("vip_conflicts", str(VIP.ip)), 1)

    def test_takes_when_the_stranger_is_gone(self) -> None:
        """A stranger that answers no longer is no reason to do without the VIP."""
        self.it.claimed(self.STRANGER, [])
        self.clock.pump([0.25] * 16)
        self.clock.pump([0.5] * int(4 * FORGET_S))
        self.assertTrue(self.holder.held)

    def test_nodes_of_the_array_are_no_strangers(self) -> None:
        """The address may still be in the kernel of a node whose daemon was killed."""
        self.it.claimed(self.STRANGER, [THEIR_MAC])
        self.own()

    def test_the_owner_is_no_stranger(self) -> None:
        """Whoever advertises may claim, also when its claim was heard before its advertisement."""
        self.it.claimed(self.STRANGER, [])
        self.hear(220)
        self.clock.pump([0.25] * 16)
        self.assertTrue(self.holder.held)

    def test_defends(self) -> None:
        """An owner whose address is claimed says so and announces it again, but not each time."""
        self.own()
        self.clock.pump([0.5] * 20)
        said = len(self.frames)
        for _ in range(5):
            self.it.claimed(self.STRANGER, [])
            self.clock.pump([JUDGE_S] * 3)
        self.assertEqual(len(self.frames), said + 2)
        self.assertGreaterEqual(self.counters.get("vip_conflicts", str(VIP.ip)), 1)

    def test_a_successor_is_not_fought(self) -> None:
        """A claim that comes a moment before its maker's higher advertisement is no conflict."""
        self.own()
        said = len(self.frames)
        self.it.claimed(self.STRANGER, [])
        self.hear(250)
        self.clock.advance(2.0)
        self.assertEqual((len(self.frames), self.counters.total("vip_conflicts")), (said, 0))


class FollowTests(RouterCase):
    """Another configuration for the same router, while it runs."""

    def follow(self, **changes: Any) -> None:
        self.it.follow(attrs.evolve(self.it.spec, **changes), "a", 60.0)

    def test_more_addresses(self) -> None:
        """The owner takes what is new, says so at once, and stays owner: no election, nothing released."""
        self.own()
        self.sent.clear()
        self.frames.clear()
        added = IPv4Interface("192.0.2.101/24")
        self.follow(vips=(VIP, added))
        self.assertEqual(self.holder.followed, ((VIP, added), 1.0, True))
        self.assertTrue(self.it.owns)
        self.assertEqual(self.it.transitions, 1)
        claims = [claim.address for claim in map(claim_in, self.frames) if claim is not None]
        self.assertIn(added.ip, claims)
        self.assertTrue(self.it.has(added.ip))
        self.assertNotIn(0, self.priorities())

    def test_less_worth(self) -> None:
        """A new priority is advertised at once, so that a better node takes over without waiting for a timer."""
        self.own()
        self.sent.clear()
        self.follow(priorities={"a": 90})
        self.assertEqual(self.priorities(), [90])
        self.hear(150)
        self.assertFalse(self.it.owns)

    def test_conditions_stay(self) -> None:
        """What lowers the priority lowers the new one as well."""
        self.it.report(Condition("x", 20), False)
        self.follow(priorities={"a": 100})
        self.assertEqual(self.it.machine.priority, 80)

    def test_interval(self) -> None:
        """The owner's backups learn the new interval at once, and it goes by it."""
        self.own()
        self.sent.clear()
        self.follow(interval_s=0.1)
        self.assertEqual(len(self.sent), 1)
        self.clock.pump([0.05] * 10)
        self.assertGreater(len(self.sent), 4)

    def test_backup(self) -> None:
        """A backup waits as before, for what is configured now."""
        self.hear(250)
        self.follow(vips=(VIP, IPv4Interface("192.0.2.101/24")), preempt=False)
        self.assertEqual(self.holder.followed[2], False)
        self.assertEqual(self.it.machine.state, State.BACKUP)

    def test_start_as_owner(self) -> None:
        """What takes the place of a router whose addresses were here has them at once."""
        self.it.stop(farewell=False)
        self.assertEqual(self.priorities(), [])
        following = self.it = self.make(attrs.evolve(SPEC, router_id=77))
        following.start(owning=True)
        self.assertTrue(following.owns)
        self.assertTrue(self.holder.held)
