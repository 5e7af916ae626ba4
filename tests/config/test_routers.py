"""Virtual routers: which VIPs move together, and who is to have them."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.array import Array, Node
from lbarray.config.failover import Failover, Router, Script
from lbarray.config.routers import VirtualRouter, virtual_routers, wrong_routers


def array(*vips: str, **priorities: int) -> Array:
    priorities = priorities or {"a": 150, "b": 120, "c": 100}
    nodes = {
        name: Node(address=ip_address(f"10.0.0.{place}"), priority=priority)
        for place, (name, priority) in enumerate(priorities.items(), 1)
    }
    return Array(vips=tuple(ip_interface(vip) for vip in vips), nodes=nodes)


def router(*vips: str, number: int = 60, **more: int) -> Router:
    return Router(vips=tuple(ip_address(vip) for vip in vips), virtual_router_id=number, priorities=more)


def shown(made: tuple[VirtualRouter, ...]) -> list[tuple[str, int, list[str]]]:
    return [(each.name, each.router_id, [str(vip) for vip in each.vips]) for each in made]


class RouterTests(SynchronousTestCase):
    """From ``[failover]`` to routers."""

    def test_one_for_all(self) -> None:
        """Without more said, all VIPs move together, with the nodes' own priorities."""
        [made] = virtual_routers(array("10.0.0.100/24", "10.0.0.101/24"), Failover())
        self.assertEqual((made.name, made.router_id, len(made.vips)), ("main", 51, 2))
        self.assertEqual(made.priorities, {"a": 150, "b": 120, "c": 100})

    def test_families_are_apart(self) -> None:
        """IPv4 and IPv6 are elected apart, under one number; IPv6 has a link-local address first (RFC 9568 §5.2.9)."""
        made = virtual_routers(array("10.0.0.100/24", "2001:db8::64/64"), Failover())
        self.assertEqual(
            shown(made),
            [("main", 51, ["10.0.0.100/24"]), ("main6", 51, ["fe80::200:5eff:fe00:233/64", "2001:db8::64/64"])],
        )

    def test_given_link_local(self) -> None:
        """A link-local VIP of the configuration comes first, wherever it stands."""
        [made] = virtual_routers(array("2001:db8::64/64", "fe80::64/64"), Failover())
        self.assertEqual([str(vip) for vip in made.vips], ["fe80::64/64", "2001:db8::64/64"])

    def test_named_routers(self) -> None:
        """Named ones have their VIPs, numbers and priorities; the others' are as before."""
        made = virtual_routers(
            array("10.0.0.100/24", "10.0.0.101/24"), Failover(routers={"east": router("10.0.0.101", b=200)})
        )
        self.assertEqual(shown(made), [("east", 60, ["10.0.0.101/24"]), ("main", 51, ["10.0.0.100/24"])])
        self.assertEqual(made[0].priorities, {"a": 150, "b": 200, "c": 100})

    def test_spread(self) -> None:
        """Each VIP is its own router and prefers another node."""
        made = virtual_routers(array("10.0.0.100/24", "10.0.0.101/24", "10.0.0.102/24"), Failover(spread=True))
        self.assertEqual([each.router_id for each in made], [51, 52, 53])
        firsts = [max(each.priorities, key=lambda node: each.priorities[node]) for each in made]
        self.assertEqual(firsts, ["a", "b", "c"])
        for each in made:
            self.assertEqual(len(set(each.priorities.values())), 3)

    def test_inherits(self) -> None:
        """What a router leaves out is as in ``[failover]``."""
        given = Failover(interval=0.1, preempt=False, accept=False, routers={"east": router("10.0.0.100")})
        [made] = virtual_routers(array("10.0.0.100/24"), given)
        self.assertEqual((made.interval_s, made.preempt, made.accept, made.virtual_mac), (0.1, False, False, False))


class WrongTests(SynchronousTestCase):
    """What contradicts itself."""

    def wrong(self, of: Array, failover: Failover) -> list[str]:
        return [f"{problem.key}: {problem.found}" for problem in wrong_routers(of, failover)]

    def test_right(self) -> None:
        """A good one has no problems."""
        good = Failover(routers={"east": router("10.0.0.101", b=200)})
        self.assertEqual(self.wrong(array("10.0.0.100/24", "10.0.0.101/24"), good), [])

    def test_unknown_vip_and_node(self) -> None:
        """Both are named, with their keys."""
        found = self.wrong(array("10.0.0.100/24"), Failover(routers={"east": router("10.0.0.9", z=5)}))
        self.assertEqual(found, ['failover.routers.east.vips: "10.0.0.9"', 'failover.routers.east.priorities: "z"'])

    def test_vip_in_two(self) -> None:
        """A VIP has one router."""
        both = {"east": router("10.0.0.100"), "west": router("10.0.0.100", number=61)}
        [found] = self.wrong(array("10.0.0.100/24"), Failover(routers=both))
        self.assertIn("failover.routers.west.vips", found)

    def test_number_twice(self) -> None:
        """A number is one router's in each family."""
        found = self.wrong(
            array("10.0.0.100/24", "10.0.0.101/24"), Failover(routers={"east": router("10.0.0.100", number=51)})
        )
        self.assertEqual(len(found), 1)
        self.assertIn("virtual_router_id: 51", found[0])

    def test_two_of_255(self) -> None:
        """Two nodes that both take without asking would fight."""
        [found] = self.wrong(array("10.0.0.100/24", a=255, b=255), Failover())
        self.assertIn("priority 255 for a and b", found)

    def test_interval(self) -> None:
        """Longer or shorter than the packet's field can say."""
        self.assertEqual(len(self.wrong(array("10.0.0.100/24"), Failover(interval=41.0))), 1)
        self.assertEqual(len(self.wrong(array("10.0.0.100/24"), Failover(interval=0.001))), 1)

    def test_script_path(self) -> None:
        """A program is named by its full path: the daemon's search path is not the operator's."""
        [found] = self.wrong(array("10.0.0.100/24"), Failover(scripts={"disk": Script(command=("df",))}))
        self.assertIn("failover.scripts.disk.command", found)

    def test_no_numbers_left(self) -> None:
        """Spread VIPs need a number each."""
        vips = [f"10.0.0.{place}/24" for place in range(100, 110)]
        [found] = self.wrong(array(*vips), Failover(spread=True, virtual_router_id=250))
        self.assertIn("10 VIPs", found)
