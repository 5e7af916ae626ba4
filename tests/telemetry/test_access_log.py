"""The access log: its lines, and that nothing holds a request up."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.telemetry.access_log import PENDING_LIMIT, AccessLog, Record, combined_in_python, combined_line, json_line
from lbarray.telemetry.counters import Counters

OCTETS = st.binary(max_size=60) | st.binary(min_size=900, max_size=1100)
STAMP = b"24/Nov/2026:22:00:00 +0000"


def record(target: bytes = b"/p?q=1", agent: bytes = b"curl/8", **more: object) -> Record:
    return Record("192.0.2.1", b"GET", target, (1, 1), 200, 50, agent=agent, **more)  # type: ignore[arg-type]


class LineTests(SynchronousTestCase):
    """The two formats."""

    def test_combined(self) -> None:
        """As Apache and nginx write it."""
        self.assertEqual(
            combined_line(record(referer=b"https://a.example/"), STAMP),
            b'192.0.2.1 - - [24/Nov/2026:22:00:00 +0000] "GET /p?q=1 HTTP/1.1" 200 50 "https://a.example/" "curl/8"\n',
        )

    def test_nobody_writes_lines_of_his_own(self) -> None:
        """Quotes, backslashes, line ends and octets beyond ASCII are escaped."""
        line = combined_line(record(target=b'/"\\', agent=b'x" 200 1\n\xff\x1b'), STAMP)
        self.assertEqual(line.count(b"\n"), 1)
        self.assertIn(b'"GET /\\"\\\\ HTTP/1.1"', line)
        self.assertTrue(line.endswith(b'"x\\" 200 1\\x0a\\xff\\x1b"\n'))

    @settings(deadline=None, max_examples=200)
    @given(OCTETS, OCTETS, OCTETS, st.integers(100, 999), st.integers(0, 1 << 62), st.sampled_from([(1, 0), (2, 0)]))
    def test_compiled(
        self, target: bytes, referer: bytes, agent: bytes, status: int, octets: int, version: tuple[int, int]
    ) -> None:
        """The line that is made in C is the one that is made in Python."""
        if combined_line is combined_in_python:
            raise SkipTest("lbarray.telemetry._lines is not built here")
        one = Record("2001:db8::1", b"PROPFIND", target, version, status, octets, referer, agent)
        self.assertEqual(combined_line(one, STAMP), combined_in_python(one, STAMP))

    def test_json(self) -> None:
        """One object a line, whatever is in it."""
        line = json_line(
            record(agent=b'"\n\xff', took_s=0.0125, backend="w1", service="https"), b"2026-11-24T22:00:00Z"
        )
        found = json.loads(line)
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual((found["agent"], found["took_ms"], found["backend"]), ('"\n\xff', 12.5, "w1"))


class LogTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.path = Path(self.mktemp())
        self.log = AccessLog(path=self.path, style="combined", counters=self.counters)

    def test_written_in_order(self) -> None:
        """Every line, in order, when the log has stopped; the file is not for everybody."""
        self.log.start()
        for number in range(1000):
            self.log.add(record(target=b"/%d" % number))
        self.log.stop()
        lines = self.path.read_text().splitlines()
        self.assertEqual([int(line.split()[6][1:]) for line in lines], list(range(1000)))
        self.assertEqual(self.path.stat().st_mode & 0o007, 0)

    def test_time(self) -> None:
        """Of each request's end, though the lines are made later; by the clock of whoever notes requests."""
        log = AccessLog(path=self.path, style="combined", counters=self.counters, now=lambda: 1.5e9)
        log.start()
        log.seconds = lambda: 50.0
        for ended_s in (46.9, 48.1, 49.0, None):
            log.add(record(ended_s=ended_s))
        log.stop()
        stamps = [line.split()[3].rpartition(":")[2] for line in self.path.read_text().splitlines()]
        self.assertEqual(stamps, ["56", "58", "59", "00"])

    def test_reopened(self) -> None:
        """Lines before the rename are in the old file, those after it in the new one."""
        self.log.start()
        self.log.add(record(target=b"/old"))
        old = self.path.with_suffix(".1")
        os.rename(self.path, old)
        self.log.reopen()
        self.log.add(record(target=b"/new"))
        self.log.stop()
        self.assertIn("/old", old.read_text())
        self.assertNotIn("/new", old.read_text())
        self.assertIn("/new", self.path.read_text())

    def test_a_disk_that_does_not_answer(self) -> None:
        """Requests go on; what cannot wait is dropped and counted."""
        os.mkfifo(self.path)
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.log.start()
        agent = b"a" * 4000
        for _ in range(PENDING_LIMIT // 4000 + 2000):
            self.log.add(record(agent=agent))
        self.assertGreater(self.counters.get("access_log_dropped"), 0)
        self.log.stop(timeout_s=0.01)
        os.close(reader)  # the writer's thread ends with an error that it counts

    def test_cannot_be_opened(self) -> None:
        """Says which file, and which key to change."""
        log = AccessLog(path=self.path / "no" / "folder", style="json", counters=self.counters)
        with self.assertRaises(SystemRefused) as raised:
            log.start()
        self.assertIn("access_log.path", str(raised.exception))

    def test_not_asked_for(self) -> None:
        """Where nobody asked for it by name, a folder that cannot be had leaves it out."""
        self.path.write_text("a file, no folder")
        log = AccessLog(path=self.path / "log", style="json", counters=self.counters, required=False)
        log.start()
        log.add(record())
        log.stop()
        self.assertEqual(self.counters.get("access_log_dropped"), 0)

    def test_no_thread_is_left(self) -> None:
        """Stopped is stopped."""
        before = set(threading.enumerate())
        self.log.start()
        self.log.stop()
        self.assertEqual(set(threading.enumerate()) - before, set())
