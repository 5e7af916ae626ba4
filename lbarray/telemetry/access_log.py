"""The access log: one line for each request, made on the spot, written by a thread.

The path of a request only appends to a list; no disk can hold it up. When the disk is slower than the clients, lines
are dropped and counted, never requests.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.extensions import not_used
from lbarray.telemetry.counters import Counters

__all__ = ["FORMATS", "AccessLog", "Record", "combined_line", "json_line"]

#: Lines that wait before they are handed to the writer at once; else the next flush takes them. Each handing over costs
#: the reactor a fight for the interpreter, so there are few.
BATCH = 4096
#: Requests that are made lines of together: while one is served it is only noted.
TOGETHER = 256
#: Octets with the writer, above which lines are dropped.
PENDING_LIMIT = 8 << 20

_SAFE = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\')
_ESCAPED = [
    bytes([octet]) if octet in _SAFE else b"\\" + bytes([octet]) if octet in b'"\\' else b"\\x%02x" % octet
    for octet in range(256)
]
_VERSIONS = {(1, 0): b"HTTP/1.0", (1, 1): b"HTTP/1.1", (2, 0): b"HTTP/2.0"}
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


class Record(NamedTuple):
    """What is known of one request when it is over.

    :ivar trace: its trace id (W3C), where traces are begun: the request's name in every log.
    :ivar octets: of the response's content, as sent. :ivar took_s: from its head to the end of its response.
    :ivar ended_s: when it was over, in the seconds of the log's clock; ``None`` for the time at which its line is made.
    """

    client: str
    method: bytes
    target: bytes
    version: tuple[int, int]
    status: int
    octets: int
    referer: bytes = b""
    agent: bytes = b""
    host: bytes = b""
    took_s: float = 0.0
    received: int = 0
    backend: str = ""
    service: str = ""
    trace: bytes = b""
    route: str = ""
    ended_s: float | None = None


def escaped(value: bytes) -> bytes:
    """Octets that could end a line or a quoted part, as ``\\xHH``: what a client sends makes no lines of its own."""
    return value if not value.translate(None, _SAFE) else b"".join([_ESCAPED[octet] for octet in value])


def combined_in_python(record: Record, stamp: bytes) -> bytes:
    """What :func:`combined_line` does, where no compiler was."""
    client, method, target, version, status, octets, referer, agent = record[:8]
    if (target + referer + agent).translate(None, _SAFE):
        target, referer, agent = escaped(target), escaped(referer), escaped(agent)
    return b'%b - - [%b] "%b %b %b" %d %d "%b" "%b"\n' % (
        client.encode(), stamp, method, target, _VERSIONS[version], status, octets, referer or b"-", agent or b"-",
    )  # fmt: skip


#: The combined log format of Apache and nginx.
combined_line: Callable[[Record, bytes], bytes]
try:
    from lbarray.telemetry._lines import combined_line
except ImportError as error:
    not_used("lbarray.telemetry._lines", error)
    combined_line = combined_in_python


def json_line(record: Record, stamp: bytes) -> bytes:
    """One JSON object: the names are stable."""
    found = {
        "time": stamp.decode(),
        "client": record.client,
        "service": record.service,
        "method": record.method.decode("latin-1"),
        "host": record.host.decode("latin-1"),
        "target": record.target.decode("latin-1"),
        "version": f"{record.version[0]}.{record.version[1]}",
        "status": record.status,
        "octets": record.octets,
        "received": record.received,
        "took_ms": round(record.took_s * 1000.0, 3),
        "route": record.route,
        "backend": record.backend,
        "referer": record.referer.decode("latin-1"),
        "agent": record.agent.decode("latin-1"),
    }
    if record.trace:
        found["trace"] = record.trace.decode("ascii")
    return json.dumps(found, separators=(",", ":")).encode() + b"\n"


def _combined_stamp(now: float) -> bytes:
    at = time.gmtime(now)
    return (
        f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}:{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} +0000"
    ).encode()


def _json_stamp(now: float) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)).encode()


#: Name to (line, stamp).
FORMATS: dict[str, tuple[Callable[[Record, bytes], bytes], Callable[[float], bytes]]] = {
    "combined": (combined_line, _combined_stamp),
    "json": (json_line, _json_stamp),
}


class AccessLog:
    """Appends lines to a file.

    :param path: opened for appending, so that several processes can share it.
    :param style: one of :data:`FORMATS`.
    :param required: when it cannot be opened, that is an error; else there is no log, and a warning.
    :param now: seconds since the epoch.
    :ivar seconds: the clock of whoever adds records.
    """

    log = Logger()

    def __init__(
        self,
        *,
        path: Path,
        style: str,
        counters: Counters,
        required: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.seconds: Callable[[], float] = time.time
        self._records: list[Record] = []
        self._required = required
        self.path = path
        self._line, self._stamp = FORMATS[style]
        self._counters = counters
        self._now = now
        self._lines: list[bytes] = []
        self._second = 0
        self._stamp_text = b""
        self._pending = 0
        self._unwritten = 0
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fd = -1

    def start(self) -> None:
        """Open the file and begin to write.

        :raises SystemRefused: it cannot be opened.
        """
        try:
            self._fd = self._open()
        except SystemRefused as error:
            if self._required:
                raise
            self.log.warn("no access log: {error}", error=error)
            return
        self._thread = threading.Thread(target=self._write_all, name="access log", daemon=True)
        self._thread.start()

    def _open(self) -> int:
        try:
            if not self._required:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise SystemRefused(
                f"write the access log {self.path}", errno=error.errno or 0, advice="change access_log.path"
            ) from None

    def add(self, record: Record) -> None:
        """Note one request. Never blocks, never raises."""
        records = self._records
        records.append(record)
        if len(records) >= TOGETHER:
            self._make_lines()
            if len(self._lines) >= BATCH:
                self.flush()

    def _make_lines(self) -> None:
        records, self._records = self._records, []
        line, add = self._line, self._lines.append
        now = self._now()
        shift = now - self.seconds()
        for record in records:
            ended_s = record[-1]
            second = int(now if ended_s is None else ended_s + shift)
            if second != self._second:
                self._second = second
                self._stamp_text = self._stamp(second)
            add(line(record, self._stamp_text))

    def flush(self) -> None:
        """Hand what has gathered to the writer. Called now and then."""
        self._make_lines()
        lines, self._lines = self._lines, []
        if self._unwritten:
            with self._lock:
                unwritten, self._unwritten = self._unwritten, 0
            self._counters.add("access_log_dropped", amount=unwritten)
        if not lines or self._thread is None:
            return
        octets = b"".join(lines)
        with self._lock:
            if self._pending + len(octets) > PENDING_LIMIT:
                self._counters.add("access_log_dropped", amount=len(lines))
                return
            self._pending += len(octets)
        self._work.put(octets)

    def reopen(self) -> None:
        """Write to a new file of this name from now on: the old one was renamed (SIGUSR1)."""
        self.flush()
        if self._thread is not None:
            self._work.put(b"")

    def stop(self, timeout_s: float = 2.0) -> None:
        """Write what is there and close; a disk that does not answer is not waited for longer than ``timeout_s``."""
        self.flush()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._work.put(None)
            thread.join(timeout_s)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "path": str(self.path),
            "pending_octets": self._pending,
            "dropped": self._counters.get("access_log_dropped"),
        }

    # The writer's thread

    def _write_all(self) -> None:
        while (octets := self._work.get()) is not None:
            if not octets:
                self._reopen_now()
                continue
            written = self._write(octets)
            with self._lock:
                self._pending -= len(octets)
                if not written:
                    self._unwritten += octets.count(b"\n")
        os.close(self._fd)

    def _write(self, octets: bytes) -> bool:
        try:
            done = os.write(self._fd, octets)
            while done < len(octets):
                done += os.write(self._fd, octets[done:])
        except OSError:
            return False
        return True

    def _reopen_now(self) -> None:
        try:
            fd = self._open()
        except SystemRefused:
            return  # the old file is better than none
        os.close(self._fd)
        self._fd = fd
