"""Spans on their way to a collector: a small receiver of OTLP over HTTP stands for it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from lbarray.telemetry import export
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.export import BATCH, SpanExporter, TracingSettings
from lbarray.telemetry.spans import SERVER, Span

reactor: Any = global_reactor


class Receiver(Resource):
    """Answers with the statuses in turn, then with 200; keeps what it took."""

    isLeaf = True

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self.statuses = list(statuses)
        self.took: list[Any] = []
        self.fields: list[Any] = []

    def render_POST(self, request: Any) -> bytes:
        status = self.statuses.pop(0) if self.statuses else 200
        request.setResponseCode(status)
        if status == 200:
            self.took.append(json.loads(request.content.read()))
            self.fields.append(request.requestHeaders)
        return b"{}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for each in self.took
            for resource in each["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]


def span(number: int = 1) -> Span:
    return Span(
        b"0af7651916cd43dd8448eb211c80319c", b"%016x" % number, b"", SERVER, "GET */", 1.5, 2.0, (("n", number),)
    )


class ExportTests(TestCase):
    """One receiver on loopback."""

    def setUp(self) -> None:
        self.patch(export, "EVERY_S", 0.01)
        self.patch(export, "BACK_OFF_S", 0.01)
        self.counters = Counters()

    def receive(self, *statuses: int) -> Receiver:
        self.receiver = Receiver(*statuses)
        site = Site(self.receiver)
        site.noisy = False
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        return self.receiver

    def export(self, *, queue: int = 1000, port: int = 0, percent: float = 100.0) -> SpanExporter:
        at = port or self.port.getHost().port
        settings = TracingSettings(
            endpoint=f"http://127.0.0.1:{at}/v1/traces",
            percent=percent,
            queue=queue,
            token="sesame",
            resource={"service.name": "shop"},
            version="1",
        )
        exporter = SpanExporter(
            reactor=reactor,
            settings=settings,
            counters=self.counters,
            # As if the reactor had counted from 1,000 s after the epoch.
            wall_clock=lambda: reactor.seconds() + 1000.0,
        )
        exporter.startService()
        self.addCleanup(exporter.stopService)
        return exporter

    async def until(self, so: Any) -> None:
        while not so():
            await deferLater(reactor, 0.01)

    async def test_arrive(self) -> None:
        """As OTLP's JSON: ids and times as the protocol has them, who recorded them, the token."""
        receiver = self.receive()
        self.export().add(span(7)._replace(parent=b"00f067aa0ba902b7", error=True))
        await self.until(lambda: receiver.spans)
        [found] = receiver.spans
        self.assertEqual(found["traceId"], "0af7651916cd43dd8448eb211c80319c")
        self.assertEqual((found["spanId"], found["parentSpanId"]), ("0000000000000007", "00f067aa0ba902b7"))
        self.assertEqual(
            tuple(f"{int(found[key]) / 1e9:.2f}" for key in ("startTimeUnixNano", "endTimeUnixNano")),
            ("1001.50", "1002.00"),
        )
        self.assertEqual(found["attributes"], [{"key": "n", "value": {"intValue": "7"}}])
        self.assertEqual((found["kind"], found["status"]), (2, {"code": 2}))
        resource = receiver.took[0]["resourceSpans"][0]["resource"]["attributes"]
        self.assertEqual(resource, [{"key": "service.name", "value": {"stringValue": "shop"}}])
        self.assertEqual(receiver.fields[0].getRawHeaders(b"authorization"), [b"Bearer sesame"])
        self.assertEqual(receiver.fields[0].getRawHeaders(b"content-type"), [b"application/json"])

    async def test_batches(self) -> None:
        """Many go in few requests, each once."""
        receiver = self.receive()
        exporter = self.export(queue=5000)
        for number in range(2 * BATCH + 10):
            exporter.add(span(number))
        await self.until(lambda: self.counters.get("spans_exported") >= 2 * BATCH + 10)
        self.assertEqual(len(receiver.took), 3)
        self.assertEqual(len({found["spanId"] for found in receiver.spans}), 2 * BATCH + 10)
        self.assertEqual(self.counters.get("spans_exported"), 2 * BATCH + 10)

    async def test_busy_collector(self) -> None:
        """One that cannot take them now gets the same later, in the same order."""
        receiver = self.receive(503, 429)
        exporter = self.export()
        for number in range(3):
            exporter.add(span(number))
        await self.until(lambda: receiver.spans)
        self.assertEqual([found["spanId"][-1] for found in receiver.spans], ["0", "1", "2"])
        self.assertEqual(self.counters.get("span_exports_failed"), 2)
        self.assertEqual(self.counters.total("spans_dropped"), 0)

    async def test_refused(self) -> None:
        """What it will not have is dropped and counted, and those behind it go on."""
        receiver = self.receive(400)
        exporter = self.export()
        exporter.add(span(1))
        await self.until(lambda: self.counters.get("spans_dropped", "refused"))
        exporter.add(span(2))
        await self.until(lambda: receiver.spans)
        self.assertEqual([found["spanId"][-1] for found in receiver.spans], ["2"])

    async def test_nobody_there(self) -> None:
        """Without a collector the queue is as long as it may be, and the rest is counted."""
        self.receive()
        port = self.port.getHost().port
        await self.port.stopListening()
        exporter = self.export(queue=10, port=port)
        for number in range(25):
            exporter.add(span(number))
        self.assertEqual(self.counters.get("spans_dropped", "queue_full"), 15)
        await self.until(lambda: self.counters.get("span_exports_failed"))
        self.assertEqual(self.counters.get("spans_dropped", "queue_full"), 15)

    async def test_stop(self) -> None:
        """The last ones are sent when the node stops."""
        receiver = self.receive()
        exporter = self.export()
        exporter.add(span(1))
        stopped: Deferred[Any] = exporter.stopService()
        await stopped
        self.assertEqual(len(receiver.spans), 1)

    def test_share(self) -> None:
        """So many of a hundred are recorded."""
        self.receive()
        chances = iter([0.0, 0.24, 0.25, 0.9])
        exporter = self.export(percent=25.0)
        exporter._chance = lambda: next(chances)
        self.assertEqual([exporter.samples() for _ in range(4)], [True, True, False, False])
