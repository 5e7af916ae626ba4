"""Traces of requests."""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import RequestHead
from lbarray.http.tracing import ensure_trace, follow_trace

TRACE = b"4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = b"00-" + TRACE + b"-00f067aa0ba902b7-01"


class TraceTests(SynchronousTestCase):
    """Passed on, or begun."""

    def head(self, *parents: bytes) -> RequestHead:
        fields = [(b"Traceparent", parent) for parent in parents]
        return RequestHead(b"GET", b"/", [*fields, (b"tracestate", b"vendor=1")])

    def test_passed_on(self) -> None:
        """A good one stays as it is, also of a later version with more in it."""
        for parent in (GOOD, b"01" + GOOD[2:] + b"-more"):
            head = self.head(parent)
            self.assertEqual(ensure_trace(head), TRACE)
            self.assertEqual(head.get_all(b"traceparent"), [parent])
            self.assertEqual(head.get(b"tracestate"), b"vendor=1")

    def test_begun(self) -> None:
        """One that has none gets one, each its own."""
        heads = [RequestHead(b"GET", b"/", []) for _ in range(2)]
        traces = [ensure_trace(head) for head in heads]
        self.assertNotEqual(*traces)
        for head, trace in zip(heads, traces, strict=True):
            (parent,) = head.get_all(b"traceparent")
            self.assertTrue(re.fullmatch(rb"00-" + trace + rb"-[0-9a-f]{16}-00", parent))

    def test_broken(self) -> None:
        """A broken one is replaced, with what vendors said of it."""
        zeros = b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"
        for broken in (b"", b"x", zeros, b"ff" + GOOD[2:], GOOD.upper(), GOOD + b"x" * 300):
            head = self.head(broken)
            self.assertNotEqual(ensure_trace(head), TRACE)
            self.assertEqual(len(head.get_all(b"traceparent")), 1)
            self.assertIsNone(head.get(b"tracestate"))

    def test_two(self) -> None:
        """Two are as good as none."""
        head = self.head(GOOD, GOOD)
        self.assertNotEqual(ensure_trace(head), TRACE)
        self.assertEqual(len(head.get_all(b"traceparent")), 1)


class FollowTests(SynchronousTestCase):
    """Traces of which this node records spans."""

    def test_sampled(self) -> None:
        """A trace that comes sampled is recorded, whoever is asked to begin some; the back end has us as its parent."""
        head = RequestHead(b"GET", b"/", [(b"Traceparent", GOOD), (b"tracestate", b"vendor=1")])
        trace, recorded = follow_trace(head, lambda: False)
        assert recorded is not None
        self.assertEqual((trace, recorded.trace, recorded.parent), (TRACE, TRACE, b"00f067aa0ba902b7"))
        self.assertNotEqual(recorded.span, recorded.asking)
        self.assertEqual(head.get_all(b"traceparent"), [b"00-" + TRACE + b"-" + recorded.asking + b"-01"])
        self.assertEqual(head.get(b"tracestate"), b"vendor=1")

    def test_not_sampled(self) -> None:
        """One that comes not sampled passes as it is."""
        parent = GOOD[:-1] + b"0"
        head = RequestHead(b"GET", b"/", [(b"traceparent", parent)])
        self.assertEqual(follow_trace(head, lambda: True), (TRACE, None))
        self.assertEqual(head.get_all(b"traceparent"), [parent])

    def test_begun(self) -> None:
        """Of those without one some are recorded; all get one."""
        for samples in (True, False):
            head = RequestHead(b"GET", b"/", [])
            trace, recorded = follow_trace(head, lambda samples=samples: samples)  # type: ignore[misc]
            self.assertEqual(recorded is not None, samples)
            (parent,) = head.get_all(b"traceparent")
            self.assertTrue(parent.startswith(b"00-" + trace))
            self.assertEqual(parent[-2:], b"01" if samples else b"00")
