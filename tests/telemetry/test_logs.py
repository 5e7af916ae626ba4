"""How log lines look, and how durations are counted."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lbarray.telemetry.events import RecentEvents
from lbarray.telemetry.histograms import BUCKETS_S, Histogram
from lbarray.telemetry.logs import LogLines, json_line, text_line


def event(level: LogLevel = LogLevel.warn, namespace: str = "lbarray.backends.service.X", **more: Any) -> Any:
    return {
        "log_namespace": namespace, "log_level": level, "log_time": 1767225600.25,
        "log_format": "back end {backend} is down", "backend": "web/w1", **more,
    }  # fmt: skip


class LineTests(SynchronousTestCase):
    """One line for each event."""

    def test_text(self) -> None:
        """When (UTC), how bad, which part, what."""
        self.assertEqual(text_line(event()), "2026-01-01T00:00:00.250Z warn backends: back end web/w1 is down")

    def test_json(self) -> None:
        """The same as an object, with the event's values apart."""
        self.assertEqual(
            json.loads(json_line(event())),
            {
                "at": "2026-01-01T00:00:00.250Z", "level": "warn", "room": "backends",
                "text": "back end web/w1 is down", "with": {"backend": "web/w1"},
            },
        )  # fmt: skip

    def test_no_line_can_be_forged(self) -> None:
        """A value with a line break does not begin a line of its own."""
        line = text_line(event(backend="x\n2026-01-01T00:00:00Z info node: all is well"))
        self.assertEqual([part[:2] for part in line.splitlines()[1:]], ["  "])

    def test_failure(self) -> None:
        """A mistake of ours comes with its traceback."""
        failure = Failure(ValueError("broken"))
        self.assertIn("ValueError: broken", text_line(event(log_failure=failure)))
        self.assertIn("ValueError: broken", json.loads(json_line(event(log_failure=failure)))["traceback"])

    def test_who_is_heard(self) -> None:
        """Ours from the level wanted; others only when they warn."""
        out = io.StringIO()
        lines = LogLines(out, least="info", journal=False)
        for level, namespace in (
            (LogLevel.info, "lbarray.node"),
            (LogLevel.debug, "lbarray.node"),
            (LogLevel.info, "twisted.web"),
            (LogLevel.warn, "twisted.web"),
        ):
            lines(event(level, namespace))
        self.assertEqual([line.split()[1] for line in out.getvalue().splitlines()], ["info", "warn"])

    def test_follow(self) -> None:
        """While it runs it can become another format, and less or more of it."""
        out = io.StringIO()
        lines = LogLines(out, least="info", journal=False)
        lines.follow(line=json_line, least="error")
        lines(event(LogLevel.info))
        lines(event(LogLevel.error))
        (line,) = out.getvalue().splitlines()
        self.assertEqual(json.loads(line)["level"], "error")

    def test_journal(self) -> None:
        """Under systemd each line begins with its priority."""
        out = io.StringIO()
        LogLines(out, journal=True)(event(LogLevel.critical))
        self.assertTrue(out.getvalue().startswith("<2>2026"))


class RecentTests(SynchronousTestCase):
    """What is kept for those who look."""

    def test_bounded(self) -> None:
        """The oldest go; numbers go on."""
        recent = RecentEvents(size=2)
        for _ in range(5):
            recent(event())
        self.assertEqual([kept.number for kept in recent.since()], [4, 5])
        self.assertEqual([kept.number for kept in recent.since(4)], [5])


class HistogramTests(SynchronousTestCase):
    """Durations in buckets."""

    def test_quantile(self) -> None:
        """An estimate lies within the bucket that holds it."""
        histogram = Histogram()
        for _ in range(90):
            histogram.observe(0.003)
        for _ in range(10):
            histogram.observe(0.3)
        self.assertTrue(0.0025 < histogram.quantile(0.5) <= 0.005)
        self.assertTrue(0.25 < histogram.quantile(0.99) <= 0.5)
        self.assertEqual(Histogram().quantile(0.5), 0.0)

    @settings(max_examples=50)
    @given(st.lists(st.floats(0, 100), min_size=1))
    def test_counts(self, durations: list[float]) -> None:
        """Each falls into one bucket, whose bounds hold it; nothing gets lost, also in another process's sum."""
        histogram, other = Histogram(), Histogram()
        for duration in durations:
            histogram.observe(duration)
            place = next((n for n, bound in enumerate(BUCKETS_S) if duration <= bound), len(BUCKETS_S))
            self.assertGreater(histogram.counts[place], 0)
        self.assertEqual(histogram.count, len(durations))
        other.add(histogram.counts, histogram.total_s)
        self.assertEqual((other.counts, other.total_s), (histogram.counts, histogram.total_s))
