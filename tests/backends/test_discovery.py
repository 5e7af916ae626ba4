"""Back ends by DNS, against a name server on the loopback interface."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.names import dns, server
from twisted.names.client import Resolver
from twisted.names.error import DNSServerError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lbarray.backends.discovery import Discovery, Place, best_services, member_name
from tests.backends.test_service import ServiceCase

reactor: Any = global_reactor


def a(address: str, ttl: int = 10) -> dns.RRHeader:
    return dns.RRHeader("web.example", dns.A, ttl=ttl, payload=dns.Record_A(address, ttl))


def srv(target: str, port: int, priority: int = 0, weight: int = 1, ttl: int = 10) -> dns.RRHeader:
    payload = dns.Record_SRV(priority, weight, port, target, ttl)
    return dns.RRHeader("_http._tcp.web.example", dns.SRV, ttl=ttl, payload=payload)


class Names:
    """A resolver that knows what a test says, by name and type."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Any]] = {}
        self.asked = 0

    def _look(self, name: str, kind: int) -> Deferred[Any]:
        self.asked += 1
        found = self.records.get((name, kind))
        return fail(DNSServerError()) if found is None else succeed((found, [], []))

    def lookupAddress(self, name: str) -> Deferred[Any]:
        return self._look(name, dns.A)

    def lookupIPV6Address(self, name: str) -> Deferred[Any]:
        return self._look(name, dns.AAAA)

    def lookupService(self, name: str) -> Deferred[Any]:
        return self._look(name, dns.SRV)


class DiscoveryTests(SynchronousTestCase):
    """What answers do, and what their absence does not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.names = Names()
        self.changes: list[set[Place]] = []

    def start(self, kind: str = "address", name: str = "web.example") -> None:
        discovery = Discovery(
            reactor=self.clock,
            resolver=self.names,
            pool="web",
            name=name,
            kind=kind,
            port=80,
            shortest_s=2.0,
            longest_s=60.0,
        )
        discovery.changed = lambda places: self.changes.append(set(places.values()))
        discovery.start()
        self.addCleanup(discovery.stop)

    def test_asked_again_by_ttl(self) -> None:
        """A change is seen when the shortest time to live is over, and not before; the same again is no change."""
        self.names.records["web.example", dns.A] = [a("192.0.2.1", 30), a("192.0.2.2", 10)]
        self.start()
        self.names.records["web.example", dns.A] = [a("192.0.2.2"), a("192.0.2.3")]
        self.clock.advance(9.9)
        self.assertEqual(self.changes, [{Place("192.0.2.1", 80), Place("192.0.2.2", 80)}])
        self.clock.advance(0.2)
        self.assertEqual(self.changes[1:], [{Place("192.0.2.2", 80), Place("192.0.2.3", 80)}])
        self.clock.advance(10.1)
        self.assertEqual(len(self.changes), 2)

    def test_bounds(self) -> None:
        """A time to live of 0 does not make us ask without end."""
        self.names.records["web.example", dns.A] = [a("192.0.2.1", 0)]
        self.start()
        asked = self.names.asked
        for _ in range(20):
            self.clock.advance(0.5)
        self.assertEqual(self.names.asked - asked, 5 * 2)

    def test_no_answer_changes_nothing(self) -> None:
        """While names cannot be resolved the back ends stay."""
        self.names.records["web.example", dns.A] = [a("192.0.2.1")]
        self.start()
        self.names.records = {}
        self.clock.pump([5.0] * 20)
        self.assertEqual(len(self.changes), 1)
        self.names.records["web.example", dns.A] = []
        self.names.records["web.example", dns.AAAA] = []
        self.clock.pump([5.0] * 20)
        self.assertEqual(len(self.changes), 1)
        self.names.records["web.example", dns.A] = [a("192.0.2.9")]
        self.clock.pump([5.0] * 2)
        self.assertEqual(self.changes[1:], [{Place("192.0.2.9", 80)}])

    def test_both_families(self) -> None:
        """IPv6 addresses count too."""
        self.names.records["web.example", dns.A] = [a("192.0.2.1")]
        six = dns.RRHeader("web.example", dns.AAAA, ttl=10, payload=dns.Record_AAAA("2001:db8::1"))
        self.names.records["web.example", dns.AAAA] = [six]
        self.start()
        self.assertEqual(self.changes, [{Place("192.0.2.1", 80), Place("2001:db8::1", 80)}])
        self.assertEqual(member_name(Place("2001:db8::1", 80)), "2001.db8..1-80")

    def test_services(self) -> None:
        """Ports and weights come from SRV records; of several priorities the best counts."""
        self.names.records["_http._tcp.web.example", dns.SRV] = [
            srv("one.example", 8080, 1, 30),
            srv("two.example", 8081, 1, 0),
            srv("spare.example", 80, 2),
        ]
        self.names.records["one.example", dns.A] = [a("192.0.2.1")]
        self.names.records["two.example", dns.A] = [a("192.0.2.2")]
        self.start("srv", "_http._tcp.web.example")
        self.assertEqual(self.changes, [{Place("192.0.2.1", 8080, 30), Place("192.0.2.2", 8081, 1)}])
        self.assertEqual(best_services([srv("", 1)]), [])

    def test_half_an_answer(self) -> None:
        """When one target cannot be resolved, nothing is taken away."""
        self.test_services()
        del self.names.records["two.example", dns.A]
        self.clock.pump([5.0] * 10)
        self.assertEqual(len(self.changes), 1)


class PoolTests(ServiceCase):
    """What a pool does with it."""

    def found(self, *addresses: str) -> None:
        discovery = self.service._discoveries.by_pool["web"]
        discovery.changed({member_name(place): place for place in (Place(each, 80) for each in addresses)})

    def test_members_come_and_go(self) -> None:
        """Found ones are members beside the named ones, until they are not found any more; a reload keeps them."""
        self.start('discover = { name = "web.example" }')
        self.found("192.0.2.11", "192.0.2.12")
        members = self.service.pools["web"].members
        self.assertEqual(set(members), {"w1", "w2", "w3", "192.0.2.11-80", "192.0.2.12-80"})
        kept = members["192.0.2.12-80"]
        self.found("192.0.2.12")
        self.assertEqual(set(members), {"w1", "w2", "w3", "192.0.2.12-80"})
        self.assertIs(members["192.0.2.12-80"], kept)
        pool = self.service.pools["web"]
        self.service.reconfigure(**self.settings('discover = { name = "web.example" }'))
        self.assertIs(pool.members["192.0.2.12-80"], kept)
        self.service.reconfigure(**self.settings())
        self.assertEqual(set(pool.members), {"w1", "w2", "w3"})


class WireTests(TestCase):
    """With a real name server."""

    async def test_resolved(self) -> None:
        """twisted.names asks the configured server."""
        zone = _Zone()
        listening = reactor.listenUDP(0, dns.DNSDatagramProtocol(server.DNSServerFactory(clients=[zone])), "127.0.0.1")
        self.addCleanup(listening.stopListening)
        resolver = Resolver(servers=[("127.0.0.1", listening.getHost().port)], reactor=reactor)
        places: list[Any] = []
        discovery = Discovery(
            reactor=reactor,
            resolver=resolver,
            pool="web",
            name="web.example",
            kind="address",
            port=80,
            shortest_s=1.0,
            longest_s=60.0,
        )
        discovery.changed = places.append
        discovery.start()
        self.addCleanup(discovery.stop)
        for _ in range(200):
            if places:
                break
            await deferLater(reactor, 0.01)
        self.assertEqual(places, [{"192.0.2.77-80": Place("192.0.2.77", 80)}])
        await deferLater(reactor, 0.05)


class _Zone(Names):
    """Answers every question for an address."""

    def query(self, query: Any, timeout: Any = None) -> Deferred[Any]:
        return succeed(([a("192.0.2.77")] if query.type == dns.A else [], [], []))
