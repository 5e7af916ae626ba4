"""Whether the CDN's hosts live."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from lbarray.rewrite.probes import CdnHealth, CdnProbes, ProbeSettings

reactor: Any = _reactor


class HealthTests(SynchronousTestCase):
    """Rise and fall."""

    def test_rise_and_fall(self) -> None:
        """It takes so many in a row, each way."""
        health = CdnHealth(rise=2, fall=3)
        changes = [health.saw(passed, "", 0.0) for passed in (False, False, True, False, False, False, True, True)]
        self.assertEqual(changes, [False, False, False, False, False, True, False, True])


class Answer:
    def __init__(self, code: int) -> None:
        self.code = code

    def deliverBody(self, protocol: Any) -> None:
        pass


class Agent:
    """Answers by host."""

    def __init__(self) -> None:
        self.answers: dict[bytes, Any] = {}
        self.asked: list[bytes] = []

    def request(self, method: bytes, uri: bytes, headers: Any = None, body: Any = None) -> Any:
        self.asked.append(uri)
        answer = self.answers[uri]
        return succeed(Answer(answer)) if isinstance(answer, int) else answer()


class ProbesTests(SynchronousTestCase):
    """Several hosts, by a clock of the test's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.agent = Agent()
        self.agent.answers = {b"https://a/h": 200, b"https://b/h": 200}
        self.told: list[list[str]] = []
        settings = ProbeSettings(path="/h", interval_s=1.0, timeout_s=0.5, rise=1, fall=2)
        self.probes = CdnProbes(
            reactor=self.clock,
            hosts=["a", "b"],
            settings=settings,
            changed=lambda alive: self.told.append(list(alive)),
            agent=self.agent,
        )
        self.probes.start()
        self.addCleanup(self.probes.stop)

    def test_failing_host(self) -> None:
        """Wrong statuses, refusals and silence take a host away after ``fall`` of them, and it comes back."""
        for wrong in (500, lambda: fail(ConnectionRefusedError("no")), Deferred):
            self.agent.answers[b"https://b/h"] = wrong
            self.clock.pump([1.0, 0.6, 0.4, 0.6])
            self.assertEqual(self.told.pop(), ["a"])
            self.assertFalse(self.probes.status()["b"]["alive"])  # type: ignore[index]
            self.agent.answers[b"https://b/h"] = 204
            self.clock.pump([0.4, 1.0])
            self.assertEqual(self.told, [["a", "b"]])
            self.told.clear()

    def test_stopped(self) -> None:
        """Nobody is asked any more, and nothing is told."""
        self.agent.answers[b"https://a/h"] = Deferred
        self.clock.advance(1.0)
        self.probes.stop()
        count = len(self.agent.asked)
        self.clock.advance(10.0)
        self.assertEqual((len(self.agent.asked), self.told), (count, []))


class RealProbeTests(TestCase):
    """Over TCP."""

    async def test_http(self) -> None:
        """One place stands for a host: the request names the host."""
        asked: list[bytes] = []

        class Page(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                asked.append(request.getHeader(b"host"))
                return b"x" * 100_000

        port = reactor.listenTCP(0, Site(Page()), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        settings = ProbeSettings(scheme="http", connect=f"127.0.0.1:{port.getHost().port}", interval_s=0.05)
        probes = CdnProbes(reactor=reactor, hosts=["cdn.example"], settings=settings, changed=lambda _: None)
        probes.start()
        while probes.health["cdn.example"].said == "not asked yet":
            await deferLater(reactor, 0.01)
        probes.stop()
        await deferLater(reactor, 0.05)
        self.assertEqual(probes.health["cdn.example"].said, "status 200")
        self.assertEqual(asked[0], b"cdn.example")
