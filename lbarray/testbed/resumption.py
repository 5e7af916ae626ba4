"""TLS clients that come back: do they find their sessions, and their back ends?

``python -m lbarray.testbed.resumption JSON``
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

import attrs

from lbarray.testbed.namespaces import Host

__all__ = ["Found", "Resumption"]

_BACKEND = re.compile(rb"(?i)\r\nx-lbarray-backend: *([^\r\n]*)")
#: Clients that ask at the same time.
ABREAST = 4
_SOURCES = tuple(f"10.77.0.{number}" for number in range(200, 216))


@attrs.frozen
class Found:
    """What became of the sessions.

    :ivar by_version: resumed ones by protocol.
    :ivar moved: those that met another back end than before, resumed or not.
    :ivar backends: back ends that anybody met first.
    """

    resumed: int
    failed: int
    by_version: dict[str, int]
    said: str
    moved: int = 0
    backends: tuple[str, ...] = ()


@attrs.frozen
class _Visit:
    session: Any = None
    resumed: bool = False
    version: str = ""
    backend: bytes = b""
    error: str = ""


@attrs.frozen
class Resumption:
    """Each client connects, asks once, leaves, and later comes back with its session.

    :ivar sessions: half of them TLS 1.2, half 1.3; spread over all client addresses.
    :ivar path: what they ask for.
    :ivar gate: a file that appears when they may come back; without one they do at once. ``GATE.first`` appears when
        all have been here.
    :ivar wander: they come back from another address.
    """

    host: str
    port: int
    name: str
    authority: str
    sessions: int = 1000
    path: str = "/small"
    gate: str = ""
    wander: bool = False

    def run_in(self, client: Host) -> Found:
        """Run in the clients' namespace."""
        out = client.run(
            sys.executable,
            "-m",
            "lbarray.testbed.resumption",
            json.dumps(attrs.asdict(self)),
            timeout_s=90.0 + self.sessions / 20.0,
        )
        found = json.loads(out)
        return Found(**{**found, "backends": tuple(found["backends"])})

    def run(self) -> Found:
        """Run here."""
        contexts = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=self.authority)
            context.minimum_version = context.maximum_version = version
            contexts.append(context)
        numbers = range(self.sessions)
        chosen = [contexts[number // len(_SOURCES) % 2] for number in numbers]
        with ThreadPoolExecutor(ABREAST) as pool:
            first = list(pool.map(self._visit, numbers, chosen, repeat(None)))
            self._pass_gate()
            kept = [number for number in numbers if not first[number].error]
            sources = [number + self.wander for number in kept]
            sessions = [first[number].session for number in kept]
            again = list(pool.map(self._visit, sources, [chosen[number] for number in kept], sessions))
        errors = [visit.error for visit in (*first, *again) if visit.error]
        resumed = Counter(visit.version for visit in again if visit.resumed)
        pairs = [(first[number], visit) for number, visit in zip(kept, again, strict=True) if not visit.error]
        return Found(
            resumed=resumed.total(),
            failed=len(errors),
            by_version=dict(resumed),
            said=errors[-1] if errors else "",
            moved=sum(before.backend != after.backend for before, after in pairs),
            backends=tuple(sorted({first[number].backend.decode() for number in kept})),
        )

    def _pass_gate(self) -> None:
        if self.gate:
            Path(self.gate + ".first").touch()
            until = time.monotonic() + 300.0
            while not Path(self.gate).exists() and time.monotonic() < until:
                time.sleep(0.02)

    def _visit(self, number: int, context: ssl.SSLContext, session: Any) -> _Visit:
        try:
            return self._ask(_SOURCES[number % len(_SOURCES)], context, session)
        except OSError as error:
            return _Visit(error=repr(error))

    def _ask(self, source: str, context: ssl.SSLContext, session: Any) -> _Visit:
        request = f"GET {self.path} HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode()
        with (
            socket.create_connection((self.host, self.port), 10, source_address=(source, 0)) as plain,
            context.wrap_socket(plain, server_hostname=self.name, session=session) as tls,
        ):
            tls.sendall(request)
            answer = b""
            while data := tls.recv(4096):
                answer += data
            backend = _BACKEND.search(answer)
            return _Visit(tls.session, bool(tls.session_reused), str(tls.version()), backend[1] if backend else b"")


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(Resumption(**json.loads(sys.argv[1])).run())))
