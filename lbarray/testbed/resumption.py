"""TLS clients that come back: do they find their sessions? ``python -m lbarray.testbed.resumption JSON``"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections import Counter
from typing import Any

import attrs

from lbarray.testbed.namespaces import Host

__all__ = ["Found", "Resumption"]

_SOURCES = tuple(f"10.77.0.{number}" for number in range(200, 216))


@attrs.frozen
class Found:
    """What became of the sessions.

    :ivar by_version: resumed ones by protocol.
    """

    resumed: int
    failed: int
    by_version: dict[str, int]
    said: str


@attrs.frozen
class Resumption:
    """Each client connects, asks once, leaves, and later comes back with its session.

    :ivar sessions: half of them TLS 1.2, half 1.3; spread over all client addresses.
    """

    host: str
    port: int
    name: str
    authority: str
    sessions: int = 1000

    def run_in(self, client: Host) -> Found:
        """Run in the clients' namespace."""
        out = client.run(
            sys.executable, "-m", "lbarray.testbed.resumption", json.dumps(attrs.asdict(self)), timeout_s=90.0
        )
        return Found(**json.loads(out))

    def run(self) -> Found:
        """Run here."""
        contexts = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=self.authority)
            context.minimum_version = context.maximum_version = version
            contexts.append(context)
        kept: list[tuple[str, ssl.SSLContext, Any]] = []
        failed, said = 0, ""
        for number in range(self.sessions):
            source, context = _SOURCES[number % len(_SOURCES)], contexts[number // len(_SOURCES) % 2]
            try:
                kept.append((source, context, self._ask(source, context, None)[0]))
            except OSError as error:
                failed, said = failed + 1, repr(error)
        resumed: Counter[str] = Counter()
        for source, context, session in kept:
            try:
                _, again, spoken = self._ask(source, context, session)
                resumed[spoken] += again
            except OSError as error:
                failed, said = failed + 1, repr(error)
        return Found(sum(resumed.values()), failed, dict(resumed), said)

    def _ask(self, source: str, context: ssl.SSLContext, session: Any) -> tuple[Any, bool, str]:
        with (
            socket.create_connection((self.host, self.port), 10, source_address=(source, 0)) as plain,
            context.wrap_socket(plain, server_hostname=self.name, session=session) as tls,
        ):
            tls.sendall(b"GET /small HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % self.name.encode())
            while tls.recv(4096):
                pass
            return tls.session, bool(tls.session_reused), str(tls.version())


if __name__ == "__main__":
    print(json.dumps(attrs.asdict(Resumption(**json.loads(sys.argv[1])).run())))
