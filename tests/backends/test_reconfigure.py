"""Back ends that follow a new configuration while they serve."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.backends.service import BackendsService
from lbarray.config.load import parse
from lbarray.errors import BadInput
from lbarray.http.events import RequestHead
from lbarray.node.backend_parts import backends_settings
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress, Outcome, ServiceId

CLIENT = ClientAddress("192.0.2.200", 4000)

HTTP = ServiceId(IPv4Address("127.0.0.1"), 8080)
BASE = '[services.http]\naddress = "127.0.0.1"\nport = 8080\n'


def head() -> RequestHead:
    return RequestHead(b"GET", b"/", [], host=b"a.example")


def text(**backends: str) -> str:
    lines = "\n".join(f"{name} = {{ address = {at!r} }}" for name, at in backends.items())
    return f"{BASE}[pools.web.backends]\n{lines}\n"


class ReconfigureTests(SynchronousTestCase):
    """What stays and what goes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.service = BackendsService(
            reactor=self.clock, counters=Counters(), **self.settings(text(w1="192.0.2.1:80", w2="192.0.2.2:80"))
        )

    def settings(self, config: str) -> dict[str, Any]:
        return backends_settings(reactor=self.clock, config=parse(config), secret=b"s" * 32)

    def become(self, config: str) -> None:
        self.service.reconfigure(**self.settings(config))

    def test_members_stay(self) -> None:
        """One that is in both keeps what was counted and what was done to it by hand."""
        self.service.drain("web", "w1")
        self.service.assign(HTTP, head(), CLIENT)
        before = self.service.pools["web"].members["w2"]
        self.become(text(w1="192.0.2.1:80", w2="192.0.2.2:80", w3="192.0.2.3:80"))
        members = self.service.pools["web"].members
        self.assertIs(members["w2"], before)
        self.assertEqual((members["w2"].outstanding, members["w1"].draining), (1, True))
        names = {self.service.assign(HTTP, head(), CLIENT).backend.name for _ in range(4)}
        self.assertEqual(names, {"w2", "w3"})

    def test_newcomers_begin_slowly(self) -> None:
        """With ``slow_start`` a back end that a reload brings grows into its part; the others keep theirs."""
        slowly = "pools.web.slow_start = '5s'\n"
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.clock.advance(60.0)
        self.become(slowly + text(w1="192.0.2.1:80", w2="192.0.2.2:80", w3="192.0.2.3:80"))
        shares = {name: member.share for name, member in self.service.pools["web"].members.items()}
        self.assertEqual(shares, {"w1": 1.0, "w2": 1.0, "w3": 0.1})

    def test_weight(self) -> None:
        """A weight changes in place."""
        config = text(w1="192.0.2.1:80", w2="192.0.2.2:80").replace("'192.0.2.1:80'", "'192.0.2.1:80', weight = 3")
        self.become(config)
        names = [self.service.assign(HTTP, head(), CLIENT).backend.name for _ in range(8)]
        self.assertEqual((names.count("w1"), names.count("w2")), (6, 2))

    def test_removed(self) -> None:
        """One that is gone ends the request that it has, and its connection is not kept."""
        assignments = [self.service.assign(HTTP, head(), CLIENT) for _ in range(2)]
        (leaving,) = [each for each in assignments if each.backend.name == "w2"]
        self.become(text(w1="192.0.2.1:80"))
        closed: list[bool] = []

        class Connection:
            def close(self) -> None:
                closed.append(True)

        leaving.finished(Outcome.ANSWERED)
        leaving.keep_connection(Connection())
        self.assertEqual(closed, [True])
        self.assertEqual({self.service.assign(HTTP, head(), CLIENT).backend.name for _ in range(3)}, {"w1"})

    def test_moved(self) -> None:
        """The same name at another address is another back end."""
        before = self.service.pools["web"].members["w1"]
        self.become(text(w1="192.0.2.9:80", w2="192.0.2.2:80"))
        self.assertIsNot(self.service.pools["web"].members["w1"], before)

    def test_service_gone(self) -> None:
        """Clients of a service that is gone, and still here, are answered."""
        self.become(text(w1="192.0.2.1:80").replace("8080", "8081"))
        self.assertEqual(self.service.assign(HTTP, head(), CLIENT).backend.name, "w1")

    def test_pool_gone(self) -> None:
        """A route that is left to a pool that is gone is no route."""
        config = text(w1="192.0.2.1:80").replace("pools.web", "pools.other").replace("8080", "8081")
        self.become(config)
        error: BadInput = self.assertRaises(BadInput, self.service.assign, HTTP, head(), CLIENT)
        self.assertEqual(error.status, 404)

    def test_check_added_and_removed(self) -> None:
        """A new check looks at once; without a check all are taken to be well, and nobody looks."""
        self.service.startService()
        self.addCleanup(self.service.stopService)
        calls = len(self.clock.getDelayedCalls())
        config = text(w1="192.0.2.1:80", w2="192.0.2.2:80")
        self.become(config + '[pools.web.check]\nkind = "tcp"\n')
        self.assertEqual(len(self.clock.getDelayedCalls()), calls + 2)
        self.become(config)
        self.assertEqual(len(self.clock.getDelayedCalls()), calls)
