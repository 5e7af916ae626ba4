"""Routes, health, policies, persistence, pools, stored connections: all without a reactor."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.connections import IdleConnections
from lbarray.backends.health import Health, Seen
from lbarray.backends.persistence import CookiePersistence
from lbarray.backends.policies import LeastOutstanding, RoundRobin
from lbarray.backends.pool import Member, Pool
from lbarray.backends.routes import Route, RouteTable
from lbarray.http.events import RequestHead
from lbarray.testing import PolicySuite
from lbarray.values import BackendAddress, BackendState

GOOD, BAD = Seen(True, "status 200"), Seen(False, "refused")


def member(name: str, weight: int = 1) -> Member:
    return Member(
        address=BackendAddress("web", name, "192.0.2.1", 80),
        weight=weight,
        health=Health(rise=2, fall=3),
        idle=IdleConnections(max_idle=2, idle_timeout_s=10),
    )


class RouteTests(SynchronousTestCase):
    """Which pool a request goes to."""

    def find(self, routes: list[Route], host: bytes, path: bytes, service: str = "http") -> str | None:
        return RouteTable(routes, service).find(host, path)

    def test_longest_path(self) -> None:
        """Of several prefixes the longest wins, wherever it stands."""
        routes = [Route("all"), Route("api", path="/api/"), Route("v2", path="/api/v2")]
        self.assertEqual(self.find(routes, b"a", b"/"), "all")
        self.assertEqual(self.find(routes, b"a", b"/api/x"), "api")
        self.assertEqual(self.find(routes, b"a", b"/api/v2?q"), "v2")

    def test_whole_segments(self) -> None:
        """A prefix ends where a segment does."""
        routes = [Route("all"), Route("shop", path="/shop")]
        self.assertEqual(self.find(routes, b"a", b"/shop"), "shop")
        self.assertEqual(self.find(routes, b"a", b"/shop/x"), "shop")
        self.assertEqual(self.find(routes, b"a", b"/shopping"), "all")

    def test_hosts(self) -> None:
        """An exact name before the longest wildcard before any; a wildcard is not its own bare name."""
        routes = [
            Route("any"),
            Route("wild", host="*.example.net"),
            Route("deep", host="*.b.example.net"),
            Route("exact", host="A.example.net"),
        ]
        self.assertEqual(self.find(routes, b"a.example.net", b"/"), "exact")
        self.assertEqual(self.find(routes, b"x.b.example.net", b"/"), "deep")
        self.assertEqual(self.find(routes, b"x.example.net", b"/"), "wild")
        self.assertEqual(self.find(routes, b"example.net", b"/"), "any")

    def test_a_host_without_that_path(self) -> None:
        """A more exact host that has no such path does not hide the others."""
        routes = [Route("any"), Route("api", host="a.example", path="/api/")]
        self.assertEqual(self.find(routes, b"a.example", b"/x"), "any")

    def test_services(self) -> None:
        """A route of other services does not exist for this one."""
        routes = [Route("inner", services=("admin",))]
        self.assertEqual(self.find(routes, b"a", b"/", "admin"), "inner")
        self.assertIsNone(self.find(routes, b"a", b"/"))

    def test_first_of_equals(self) -> None:
        """The order of the file decides between equals."""
        self.assertEqual(self.find([Route("one"), Route("two")], b"a", b"/"), "one")


class HealthTests(SynchronousTestCase):
    """Rise and fall."""

    def run_through(self, *seen: Seen) -> list[BackendState]:
        health = Health(rise=2, fall=3)
        states = []
        for now, each in enumerate(seen):
            health.saw(each, float(now))
            states.append(health.state)
        return states

    def test_unchecked_serves(self) -> None:
        """Before anybody looked, it may have requests."""
        self.assertTrue(Health().serves)

    def test_first_look_decides(self) -> None:
        """No three failures are needed at the start."""
        self.assertEqual(self.run_through(BAD), [BackendState.DOWN])
        self.assertEqual(self.run_through(GOOD), [BackendState.UP])

    def test_falls_after_three(self) -> None:
        """Two failures are a hiccup, and a success in between starts the count anew."""
        up, down = BackendState.UP, BackendState.DOWN
        self.assertEqual(self.run_through(GOOD, BAD, BAD, BAD), [up, up, up, down])
        self.assertEqual(self.run_through(GOOD, BAD, BAD, GOOD, BAD, BAD), [up] * 6)

    def test_rises_after_two(self) -> None:
        """One success is luck."""
        up, down = BackendState.UP, BackendState.DOWN
        self.assertEqual(self.run_through(BAD, GOOD, BAD, GOOD, GOOD), [down, down, down, down, up])

    def test_changes_are_told_once(self) -> None:
        """``saw`` is true when the state changed, and only then."""
        health = Health(rise=1, fall=2)
        self.assertEqual(
            [health.saw(each, 0.0) for each in (GOOD, BAD, BAD, BAD, GOOD)], [True, False, True, False, True]
        )


class RoundRobinTests(PolicySuite, SynchronousTestCase):
    """In turn."""

    def make_policy(self) -> RoundRobin:
        return RoundRobin()

    def make_members(self, *weights: int) -> list[Member]:
        return [member(f"w{place}", weight) for place, weight in enumerate(weights)]

    def test_weights_smoothly(self) -> None:
        """5:1:1 is not aaaaabc: the heavy one's turns are spread."""
        policy, members = RoundRobin(), self.make_members(5, 1, 1)
        turns = "".join("abc"[members.index(policy.choose(members, b""))] for _ in range(7))
        self.assertEqual(turns, "aabacaa")


class LeastOutstandingTests(PolicySuite, SynchronousTestCase):
    """Whoever has the least to do."""

    def make_policy(self) -> LeastOutstanding:
        return LeastOutstanding()

    def make_members(self, *weights: int) -> list[Member]:
        return [member(f"w{place}", weight) for place, weight in enumerate(weights)]

    def test_the_idle_one(self) -> None:
        """Busy members are passed over."""
        members = self.make_members(1, 1, 1)
        members[0].outstanding = members[2].outstanding = 3
        self.assertEqual({LeastOutstanding().choose(members, b"") for _ in range(5)}, {members[1]})

    def test_by_weight(self) -> None:
        """Twice the weight may have twice as much in hand."""
        members = self.make_members(1, 2)
        members[0].outstanding, members[1].outstanding = 2, 4
        self.assertIs(LeastOutstanding().choose(members, b""), members[1])


class PoolTests(SynchronousTestCase):
    """Members that serve the same."""

    def setUp(self) -> None:
        self.members = [member("w1"), member("w2")]
        self.persistence = CookiePersistence(cookie="LB", secret=b"secret")
        self.pool = Pool(name="web", members=self.members, policy=RoundRobin(), persistence=self.persistence)

    def take_down(self, broken: Member) -> None:
        broken.health.saw(BAD, 0.0)
        self.pool.refresh()

    def test_down_gets_nothing(self) -> None:
        """Neither new requests nor those of its cookie."""
        self.take_down(self.members[0])
        self.assertEqual({self.pool.choose(()) for _ in range(4)}, {self.members[1]})
        self.assertIsNone(self.pool.bound_to([self.members[0].token]))

    def test_nobody(self) -> None:
        """When all are down there is no member to choose."""
        for each in self.members:
            self.take_down(each)
        self.assertIsNone(self.pool.choose(()))

    def test_draining_keeps_its_own(self) -> None:
        """A draining member gets no new clients, but those that are bound to it."""
        self.members[0].draining = True
        self.pool.refresh()
        self.assertEqual({self.pool.choose(()) for _ in range(4)}, {self.members[1]})
        self.assertIs(self.pool.bound_to([self.members[0].token]), self.members[0])
        self.assertIs(self.members[0].state, BackendState.DRAINING)

    def test_not_the_same_again(self) -> None:
        """A repeat goes to another member."""
        self.assertEqual({self.pool.choose((self.members[0],)) for _ in range(4)}, {self.members[1]})
        self.assertIsNone(self.pool.choose(tuple(self.members)))

    def test_forged_cookie(self) -> None:
        """An unknown value is no value."""
        self.assertIsNone(self.pool.bound_to([b"", b"w1", b"\xff" * 50]))

    def test_tokens(self) -> None:
        """Every node of the array makes the same ones; nobody else can, and they tell nothing."""
        again = CookiePersistence(cookie="LB", secret=b"secret")
        other = CookiePersistence(cookie="LB", secret=b"other")
        address = self.members[0].address
        self.assertEqual(again.token(address), self.members[0].token)
        self.assertNotEqual(other.token(address), self.members[0].token)
        self.assertNotIn(b"w1", self.members[0].token)

    def test_the_back_end_does_not_see_it(self) -> None:
        """The cookie is taken out on the way, where that is wanted."""
        head = RequestHead(b"GET", b"/", [(b"Cookie", b"LB=x; a=1")])
        self.assertEqual(self.persistence.read(head), [b"x"])
        self.assertEqual(head.fields, [(b"Cookie", b"a=1")])
        kept = CookiePersistence(cookie="LB", secret=b"secret", strip=False)
        head = RequestHead(b"GET", b"/", [(b"Cookie", b"LB=x")])
        self.assertEqual(kept.read(head), [b"x"])
        self.assertEqual(head.fields, [(b"Cookie", b"LB=x")])


class Connection:
    """Something that can be closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class IdleConnectionTests(SynchronousTestCase):
    """Connections that wait."""

    def setUp(self) -> None:
        self.idle = IdleConnections(max_idle=2, idle_timeout_s=10)
        self.made = [Connection() for _ in range(3)]

    def test_last_in_first_out(self) -> None:
        """The freshest is used first."""
        for now, connection in enumerate(self.made[:2]):
            self.idle.store(connection, float(now))
        self.assertIs(self.idle.take(), self.made[1])
        self.assertIs(self.idle.take(), self.made[0])
        self.assertIsNone(self.idle.take())

    def test_oldest_makes_room(self) -> None:
        """No more than the limit wait."""
        for now, connection in enumerate(self.made):
            self.idle.store(connection, float(now))
        self.assertEqual([connection.closed for connection in self.made], [True, False, False])

    def test_expire(self) -> None:
        """Those that waited too long are closed."""
        self.idle.store(self.made[0], 0.0)
        self.idle.store(self.made[1], 5.0)
        self.assertEqual(self.idle.expire(10.0), 1)
        self.assertEqual([connection.closed for connection in self.made], [True, False, False])

    def test_forget(self) -> None:
        """One that died is not handed out; an unknown one is no matter."""
        self.idle.store(self.made[0], 0.0)
        self.idle.forget(self.made[0])
        self.idle.forget(self.made[1])
        self.assertIsNone(self.idle.take())

    def test_none_wanted(self) -> None:
        """A limit of none closes at once."""
        IdleConnections(max_idle=0, idle_timeout_s=1).store(self.made[0], 0.0)
        self.assertTrue(self.made[0].closed)
