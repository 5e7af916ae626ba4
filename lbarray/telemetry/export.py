"""Sends spans to a collector (OTLP over HTTP). No request waits for it, and its memory is bounded."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from lbarray.telemetry.counters import Counters
from lbarray.telemetry.spans import Span, encode

__all__ = ["SpanExporter", "TracingSettings"]

EVERY_S: Final = 1.0
#: Spans of one request to the collector.
BATCH: Final = 512
#: Seconds for one request, and between two tries while the collector cannot take any.
TIMEOUT_S, BACK_OFF_S, BACK_OFF_LAST_S = 10.0, 1.0, 30.0
#: Seconds of a node's stop that the last spans may cost.
LAST_S: Final = 1.0
#: Statuses after which the same may be sent again (OTLP/HTTP, "Retryable Response Codes").
_AGAIN: Final = frozenset([429, 502, 503, 504])


@attrs.frozen
class TracingSettings:
    """:ivar endpoint: the collector's URL. :ivar percent: of the traces that begin here are recorded.
    :ivar queue: spans that wait at most. :ivar token: goes along as a bearer token; empty for none.
    :ivar resource: who recorded the spans."""

    endpoint: str
    percent: float
    queue: int
    token: str
    resource: Mapping[str, str]
    version: str = ""


@implementer(IBodyProducer)
class _Octets:
    """A request's content, all there."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.length = len(octets)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._octets)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It was written at once."""

    resumeProducing = stopProducing = pauseProducing


class SpanExporter(Service):
    """Keeps spans until the collector has them. What finds no room is dropped and counted (``spans_dropped``).

    :param wall_clock: seconds since the epoch; the spans' own times are the reactor's.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        settings: TracingSettings,
        counters: Counters,
        chance: Callable[[], float] = random.random,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._reactor = reactor
        self._counters = counters
        self._chance = chance
        self._wall_clock = wall_clock
        self._part = settings.percent / 100.0
        self._spans: deque[Span] = deque()
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.maxPersistentPerHost = 1
        self._agent: Any = Agent(reactor, connectTimeout=TIMEOUT_S, pool=self._pool)
        self._sending: Deferred[Any] | None = None
        self._not_before = 0.0
        self._back_off_s = BACK_OFF_S
        self._well = True
        self._loop = LoopingCall(self._flush)
        self._loop.clock = reactor

    def samples(self) -> bool:
        """Shall a trace that begins here be recorded?"""
        return self._chance() < self._part

    def add(self, span: Span) -> None:
        """Send it some time soon."""
        if len(self._spans) >= self.settings.queue:
            self._counters.add("spans_dropped", "queue_full")
            return
        self._spans.append(span)

    def startService(self) -> None:
        super().startService()
        self._loop.start(EVERY_S, now=False)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Send what is there, if the collector takes it at once."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        self._not_before = 0.0
        last = self._flush()
        if last is not None:
            limit = self._reactor.callLater(LAST_S, last.cancel)
            yield last
            if limit.active():
                limit.cancel()
        if self._spans:
            self._counters.add("spans_dropped", "stopped", len(self._spans))
            self._spans.clear()
        yield self._pool.closeCachedConnections()

    def _flush(self) -> Deferred[Any] | None:
        if self._sending is None and self._spans and self._reactor.seconds() >= self._not_before:
            self._sending = self._send()
        return self._sending

    @inlineCallbacks
    def _send(self) -> Any:
        """Batch after batch, until nothing is left or the collector cannot take more."""
        try:
            while self._spans:
                batch = [self._spans.popleft() for _ in range(min(BATCH, len(self._spans)))]
                try:
                    # A worker process's reactor counts from when the machine started.
                    epoch_s = self._wall_clock() - self._reactor.seconds()
                    octets = encode(batch, self.settings.resource, self.settings.version, epoch_s)
                    status, said = yield self._post(octets)
                except Exception as error:  # of the resolver, of TLS, of the connection: all the same to us
                    status, said = 0, str(error) or type(error).__name__
                if 200 <= status < 300:
                    self._counters.add("spans_exported", "", len(batch))
                    self._took()
                elif status == 0 or status in _AGAIN:
                    self._wait(batch, f"status {status}" if status else said)
                    return
                else:
                    self._counters.add("spans_dropped", "refused", len(batch))
                    self._complain(f"status {status}: {said[:200]}")
        finally:
            self._sending = None

    @inlineCallbacks
    def _post(self, octets: bytes) -> Any:
        headers = Headers({b"Content-Type": [b"application/json"], b"User-Agent": [b"lbarray"]})
        if self.settings.token:
            headers.addRawHeader(b"Authorization", b"Bearer " + self.settings.token.encode())
        asked = self._agent.request(b"POST", self.settings.endpoint.encode(), headers, _Octets(octets))
        limit = self._reactor.callLater(TIMEOUT_S, asked.cancel)
        try:
            response = yield asked
            body = yield readBody(response)
        finally:
            if limit.active():
                limit.cancel()
        return response.code, body.decode("utf-8", "replace")

    def _took(self) -> None:
        self._back_off_s = BACK_OFF_S
        if not self._well:
            self._well = True
            self.log.info("the trace collector takes spans again")

    def _wait(self, batch: list[Span], why: str) -> None:
        room = max(0, self.settings.queue - len(self._spans))
        self._spans.extendleft(reversed(batch[:room]))
        if len(batch) > room:
            self._counters.add("spans_dropped", "queue_full", len(batch) - room)
        self._counters.add("span_exports_failed")
        self._not_before = self._reactor.seconds() + self._back_off_s
        self._back_off_s = min(BACK_OFF_LAST_S, 2 * self._back_off_s)
        self._complain(why)

    def _complain(self, why: str) -> None:
        if self._well:
            self._well = False
            self.log.warn(
                "the trace collector {endpoint} takes no spans: {why}; {queue} are kept meanwhile (tracing.endpoint)",
                endpoint=self.settings.endpoint,
                why=why,
                queue=self.settings.queue,
            )
