"""The feed of server-sent events."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from lbarray.console.access import Access
from lbarray.console.api import api_site
from tests.console.test_console import make_view


def logged(text: str, namespace: str = "lbarray.failover.service.FailoverService") -> dict[str, Any]:
    return {"log_namespace": namespace, "log_level": LogLevel.info, "log_format": text, "log_time": 1.5}


class LiveTests(SynchronousTestCase):
    """Who listens hears."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.view = make_view()
        self.site = api_site(self.view, Access(), self.clock)

    def listen(self) -> StringTransport:
        peer = IPv4Address("TCP", "127.0.0.1", 50000)
        protocol: Any = self.site.buildProtocol(peer)
        transport = StringTransport(peerAddress=peer)
        protocol.makeConnection(transport)
        protocol.dataReceived(b"GET /live HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        self.protocol = protocol
        return transport

    def heard(self, transport: StringTransport, kind: str) -> list[Any]:
        blocks = transport.value().decode().split("\n\n")
        return [json.loads(block.partition("data: ")[2]) for block in blocks if f"event: {kind}\n" in block]

    def test_status(self) -> None:
        """The status at once, and then each second."""
        transport = self.listen()
        self.assertEqual([status["node"] for status in self.heard(transport, "status")], ["a"])
        self.clock.advance(1)
        self.assertEqual(len(self.heard(transport, "status")), 2)

    def test_events(self) -> None:
        """What happened before, and what happens: of lbarray, and of nobody else."""
        self.view.events(logged("before"))
        self.view.events(logged("not ours", "twisted.internet.protocol.Factory"))
        transport = self.listen()
        self.view.events(logged("after"))
        happened = self.heard(transport, "happened")
        self.assertEqual(
            [(event["text"], event["room"]) for event in happened], [("before", "failover"), ("after", "failover")]
        )
        self.assertEqual([event["number"] for event in happened], [1, 2])

    def test_nobody(self) -> None:
        """When the last has gone the status is not gathered any more."""
        self.listen()
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
