"""Where a client's packets go is where the plane sends them."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.scheduler.decision import PacketDecision
from lbarray.scheduler.maglev import Weighted
from lbarray.scheduler.table import RowTable
from lbarray.scheduler.where import Place, places
from lbarray.values import Address, HashBy, PlaneService, ServiceId, WorkerCost, WorkerTarget
from tests.bpf.frames import OWN, SYN, VIP, VIP6, web, web6

SECRET = bytes(range(16))

WEB = PlaneService(ServiceId(VIP, 80), HashBy.CONNECTION)
SECURE = PlaneService(ServiceId(VIP, 443), HashBy.CLIENT, prefix4=24)
WEB6 = PlaneService(ServiceId(VIP6, 443), HashBy.CLIENT)
NAMES = {0: "a", 1: "b", 2: "c"}


class WhereTests(SynchronousTestCase):
    """Addresses in, rows and workers out."""

    def setUp(self) -> None:
        self.table = RowTable({name: index for index, name in NAMES.items()}, 1009)
        self.table.update([Weighted(name) for name in "ab"])
        self.table.update([Weighted(name) for name in "abc"])

    def where(self, client: Address, port: int | None = None) -> list[Place]:
        services = [WEB, SECURE, WEB6]
        return places(client, port, services=services, table=self.table, names=NAMES, secret=SECRET)

    def test_as_the_plane(self) -> None:
        """For random clients the worker is the one that the packet decision finds for a packet of theirs."""
        plane = PacketDecision(mac=OWN, secret=SECRET, table_size=1009, self_index=9)
        plane.set_services([WEB, SECURE, WEB6])
        plane.set_active([VIP, VIP6])
        plane.set_workers(
            [WorkerTarget(index, name, VIP, bytes([2, 0, 0, 0, 1, index])) for index, name in NAMES.items()]
        )
        plane.apply(self.table.rows)
        chance = random.Random(1)
        for _ in range(100):
            port = chance.randrange(1024, 65536)
            client = IPv4Address(chance.randrange(1 << 24, 1 << 31))
            by_connection, by_client = self.where(client, port)
            for place, dport in ((by_connection, 80), (by_client, 443)):
                decided = plane.decide(web(str(client), port, dport))
                assert decided.worker is not None
                self.assertEqual(NAMES[decided.worker], place.worker)
            client6 = IPv6Address(chance.randrange(1 << 120, 1 << 126))
            (place,) = self.where(client6, port)
            decided = plane.decide(web6(str(client6), port, 443))
            assert decided.worker is not None
            self.assertEqual(NAMES[decided.worker], place.worker)

    def test_alternative(self) -> None:
        """Where a service chooses, the other worker is the one that gets what the first is too busy for."""
        spread = PlaneService(WEB.id, least_loaded=True)
        plane = PacketDecision(mac=OWN, secret=SECRET, table_size=1009, self_index=9)
        plane.set_services([spread])
        plane.set_active([VIP])
        plane.set_workers(
            [WorkerTarget(index, name, VIP, bytes([2, 0, 0, 0, 1, index])) for index, name in NAMES.items()]
        )
        plane.apply(self.table.rows)
        client, seen = IPv4Address("203.0.113.9"), set()
        for port in range(2000, 2100):
            (place,) = places(client, port, services=[spread], table=self.table, names=NAMES, secret=SECRET)
            plane.set_costs(
                {index: WorkerCost(10_000_000 * (name == place.worker), 1024) for index, name in NAMES.items()}
            )
            decided = plane.decide(web(str(client), port, flags=SYN)).worker
            self.assertEqual(NAMES[-1 if decided is None else decided], place.alternative or place.worker)
            seen.add((place.worker, place.alternative))
        self.assertEqual(len(seen), 9)

    def test_by_connection(self) -> None:
        """Without its port, a client of a service hashed by connection is everybody's, by their rows."""
        web, secure = self.where(IPv4Address("203.0.113.9"))
        self.assertIsNone(web.row)
        self.assertAlmostEqual(sum(web.shares.values()), 1.0)
        self.assertEqual(set(web.shares), {"a", "b", "c"})
        self.assertIsNotNone(secure.row)
        with_port, _ = self.where(IPv4Address("203.0.113.9"), 50000)
        self.assertIn(with_port.worker, "abc")

    def test_group(self) -> None:
        """Clients of one hash group have one row."""
        rows = {self.where(IPv4Address(f"203.0.113.{host}"))[1].row for host in range(1, 200, 13)}
        self.assertEqual(len(rows), 1)

    def test_families(self) -> None:
        """An IPv6 client has nothing to do with IPv4 VIPs."""
        self.assertEqual([place.service for place in self.where(IPv6Address("2001:db8::9"))], [WEB6.id])

    def test_before(self) -> None:
        """A row that moved names who had it."""
        found = [self.where(IPv4Address("203.0.113.9"), port)[0] for port in range(1024, 1400)]
        moved = [place for place in found if place.worker == "c"]
        self.assertTrue(moved)
        self.assertTrue(all(place.before[0] in "ab" for place in moved))
