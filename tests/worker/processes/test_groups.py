"""The listening sockets of a node: real ones, while processes become more and fewer."""

from __future__ import annotations

import select
import socket
from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.values import ServiceId
from lbarray.worker.processes import groups
from lbarray.worker.processes.groups import ListeningGroups, Offered
from tests.system.ports import free_ports


class GroupTests(SynchronousTestCase):
    """One service that is steered by client, and one that is left to the kernel."""

    def setUp(self) -> None:
        self.groups = ListeningGroups()
        self.addCleanup(self.groups.close)
        self.offered = [
            Offered(name, ServiceId(ip_address("127.0.0.1"), port), prefix)
            for (name, prefix), port in zip((("steered", 32), ("left", None)), free_ports(2), strict=True)
        ]

    def use(self, places: int) -> None:
        self.groups.follow(self.offered, places)
        self.groups.steer(places)

    def reached(self, places: int) -> list[set[int]]:
        """The places, of so many, at which clients wait, by service; all that wait are taken."""
        found = []
        for service, offered in enumerate(self.offered):
            group = [self.groups.of(self.offered, place)[service] for place in range(places)]
            at = ("127.0.0.1", offered.service_id.port)
            clients = [
                socket.create_connection(at, 5, source_address=(f"127.0.4.{number}", 0)) for number in range(1, 81)
            ]
            ready, _, _ = select.select(group, [], [], 5)
            found.append({group.index(each) for each in ready})
            for each in ready:
                while select.select([each], [], [], 0)[0]:
                    each.accept()[0].close()
            for client in clients:
                client.close()
        return found

    def test_more(self) -> None:
        """New places get nobody until they are steered to; then all get their share. Sockets that were there stay."""
        self.use(2)
        before = self.groups.of(self.offered, 1)
        self.groups.follow(self.offered, 4)
        self.assertEqual(self.reached(4), [{0, 1}, {0, 1}])
        self.groups.steer(4)
        self.assertEqual(self.reached(4), [{0, 1, 2, 3}] * 2)
        self.assertEqual(self.groups.of(self.offered, 1), before)

    def test_fewer(self) -> None:
        """Places that are not wanted get nobody while they are still there, and are closed without moving the others;
        one place is left alone; and they can become more again."""
        self.use(4)
        kept = self.groups.of(self.offered, 0)
        self.groups.steer(2)
        self.assertEqual(self.reached(4), [{0, 1}, {0, 1}])
        self.groups.trim(2)
        self.assertEqual(self.reached(2), [{0, 1}, {0, 1}])
        self.groups.steer(1)
        self.groups.trim(1)
        self.assertEqual(self.reached(1), [{0}, {0}])
        self.assertEqual(self.groups.of(self.offered, 0), kept)
        self.use(3)
        self.assertEqual(self.reached(3), [{0, 1, 2}] * 2)

    def test_new_service(self) -> None:
        """A service that comes while some places get nobody gives them nobody either, from its first moment on."""
        steered, left = self.offered
        self.groups.follow([], 4)
        self.groups.steer(2)
        made, first = [], groups._opened

        def opened(offered: Offered) -> socket.socket:
            """With clients that come between the opening of two sockets."""
            listener = first(offered)
            for number in range(1, 21):
                at = ("127.0.0.1", offered.service_id.port)
                made.append(socket.create_connection(at, 5, source_address=(f"127.0.4.{number}", 0)))
                self.addCleanup(made[-1].close)
            return listener

        self.patch(groups, "_opened", opened)
        self.groups.follow([steered, left], 4)
        self.assertEqual(len(made), 160)
        unwanted = [each for place in (2, 3) for each in self.groups.of([steered, left], place)]
        self.assertEqual(select.select(unwanted, [], [], 0)[0], [])

    def test_refused(self) -> None:
        """When the places of one service are not to be had, no service has more than before."""
        self.use(2)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            more = Offered("taken", ServiceId(ip_address("127.0.0.1"), taken.getsockname()[1]), None)
            with self.assertRaises(SystemRefused):
                self.groups.follow([*self.offered, more], 4)
        self.assertEqual(self.reached(2), [{0, 1}, {0, 1}])
        with self.assertRaises(IndexError):
            self.groups.of(self.offered, 2)
