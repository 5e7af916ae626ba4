"""Many clients over few connections: ``python -m lbarray.testbed.visitors FILE``.

Each visit is one GET with fields of its own, such as a cookie: what the array knows a client by. A visit that meets a
broken connection is repeated until it is answered or its time is up, as a browser would. One JSON line for each.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import time
from pathlib import Path

import attrs

__all__ = ["Visit", "Visits", "Welcome", "read_welcomes"]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FIELD = {
    name: re.compile(rb"\r\n" + name.encode() + rb": *([^\r\n]*)", re.IGNORECASE)
    for name in ("x-lbarray-backend", "x-lbarray-node", "set-cookie")
}


@attrs.frozen
class Visit:
    """One request. ``fields``: lines of its head, without line ends."""

    path: str
    fields: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Visits:
    """What to ask.

    :ivar connections: that the visits are spread over, each a thread; :ivar sources: their local addresses, in turn.
    :ivar patience_s: how long one visit may be tried.
    :ivar rate: visits per second of all connections together; 0 means as fast as it goes.
    """

    host: str
    port: int
    name: str
    visits: tuple[Visit, ...]
    sources: tuple[str, ...] = ()
    connections: int = 16
    timeout_s: float = 2.0
    patience_s: float = 10.0
    rate: float = 0.0

    def write(self, path: Path) -> Path:
        """For the command line."""
        path.write_text(json.dumps(attrs.asdict(self)))
        return path


@attrs.frozen(kw_only=True)
class Welcome:
    """What became of a visit: ``place`` in the list, who answered; ``tries`` that it took. Times are monotonic."""

    place: int
    status: int = 0
    backend: str = ""
    node: str = ""
    cookie: str = ""
    tries: int = 1
    began: float = 0.0
    ended: float = 0.0


def read_welcomes(text: str) -> list[Welcome]:
    """What a process of visitors printed, in the order of the visits."""
    found = [Welcome(**json.loads(line)) for line in text.splitlines() if line.startswith("{")]
    return sorted(found, key=lambda welcome: welcome.place)


class _Line(threading.Thread):
    """One connection after the other, one visit after the other."""

    def __init__(self, visits: Visits, number: int, out: list[Welcome]) -> None:
        super().__init__(daemon=True)
        self._visits = visits
        self._number = number
        self._out = out
        self._socket: socket.socket | None = None

    def run(self) -> None:
        visits = self._visits
        began = time.monotonic()
        for turn, place in enumerate(range(self._number, len(visits.visits), visits.connections)):
            if visits.rate:
                due = began + (turn * visits.connections + self._number) / visits.rate
                time.sleep(max(0.0, due - time.monotonic()))
            self._out.append(self._visit(place, visits.visits[place]))
        if self._socket is not None:
            self._socket.close()

    def _visit(self, place: int, visit: Visit) -> Welcome:
        visits = self._visits
        lines = [f"GET {visit.path} HTTP/1.1", f"Host: {visits.name}", *visit.fields, "", ""]
        request = "\r\n".join(lines).encode()
        began = time.monotonic()
        tries = 0
        while True:
            tries += 1
            try:
                head = self._ask(request)
            except OSError:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
                if time.monotonic() - began > visits.patience_s:
                    return Welcome(place=place, tries=tries, began=began, ended=time.monotonic())
                time.sleep(0.05)
                continue
            found = {name: match[1].decode() if (match := shape.search(head)) else "" for name, shape in _FIELD.items()}
            return Welcome(
                place=place,
                status=int(head[9:12]),
                backend=found["x-lbarray-backend"],
                node=found["x-lbarray-node"],
                cookie=found["set-cookie"].partition(";")[0],
                tries=tries,
                began=began,
                ended=time.monotonic(),
            )

    def _ask(self, request: bytes) -> bytes:
        visits = self._visits
        if self._socket is None:
            source = (visits.sources[self._number % len(visits.sources)], 0) if visits.sources else None
            self._socket = socket.create_connection((visits.host, visits.port), visits.timeout_s, source)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0 or len(data) < end + 4 + _length(data[:end]):
            more = self._socket.recv(65536)
            if not more:
                raise ConnectionResetError("closed within a response")
            data += more
        return data[:end]


def _length(head: bytes) -> int:
    match = _LENGTH.search(head)
    return int(match[1]) if match else 0


def main(path: str) -> None:
    """Make the visits that the file says."""
    values = json.loads(Path(path).read_text())
    values["visits"] = tuple(Visit(visit["path"], tuple(visit["fields"])) for visit in values["visits"])
    visits = Visits(**values)
    out: list[Welcome] = []
    lines = [_Line(visits, number, out) for number in range(visits.connections)]
    for line in lines:
        line.start()
    for line in lines:
        line.join()
    sys.stdout.write("\n".join(json.dumps(attrs.asdict(welcome)) for welcome in out) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
