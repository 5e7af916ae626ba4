"""A bounded client, run as a process of its own: ``python -m lbarray.testbed.traffic '{...}'``.

It prints one JSON line per request. Times are of the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

__all__ = ["Answer", "Load", "read_answers"]

NODE_FIELD = "X-Lbarray-Node"
BACKEND_FIELD = "X-Lbarray-Backend"


@attrs.frozen(kw_only=True)
class Load:
    """What to ask.

    :ivar sources: local addresses, used in turn.
    :ivar count: requests in all; 0 means as many as ``seconds`` allow.
    :ivar per_connection: requests over each connection.
    :ivar pause_s: between two requests of one thread.
    :ivar keep_cookies: each thread brings back the cookies it was given.
    :ivar authority: file of the certificate to trust; none means plain HTTP.
    """

    host: str
    port: int
    name: str = "shop.example.com"
    path: str = "/"
    method: str = "GET"
    sources: tuple[str, ...] = ()
    count: int = 0
    seconds: float = 10.0
    threads: int = 1
    per_connection: int = 1
    pause_s: float = 0.0
    timeout_s: float = 5.0
    keep_cookies: bool = False
    authority: str = ""

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(attrs.asdict(self))


@attrs.frozen(kw_only=True)
class Answer:
    """What became of one request. ``error`` is empty when there was an answer."""

    began: float
    ended: float
    status: int = 0
    node: str = ""
    backend: str = ""
    cookie: str = ""
    octets: int = 0
    error: str = ""

    @property
    def good(self) -> bool:
        """It was answered, and with success."""
        return not self.error and 200 <= self.status < 400


def read_answers(text: str) -> list[Answer]:
    """The answers that a client process printed."""
    return [Answer(**json.loads(line)) for line in text.splitlines() if line.startswith("{")]


class _Client(threading.Thread):
    def __init__(self, load: Load, number: int, tickets: Iterator[int], lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        self._load = load
        self._number = number
        self._tickets = tickets
        self._lock = lock
        self._cookie = ""
        self._context: ssl.SSLContext | None = None
        if load.authority:
            self._context = ssl.create_default_context(cafile=load.authority)

    def _ticket(self) -> int | None:
        with self._lock:
            return next(self._tickets, None)

    def _connect(self, ticket: int) -> http.client.HTTPConnection:
        load = self._load
        source = (load.sources[ticket % len(load.sources)], 0) if load.sources else None
        connection = http.client.HTTPConnection(load.host, load.port, timeout=load.timeout_s, source_address=source)
        connection.connect()
        if self._context is not None:
            connection.sock = self._context.wrap_socket(connection.sock, server_hostname=load.name)
        return connection

    def run(self) -> None:
        load = self._load
        until = time.monotonic() + load.seconds
        connection: http.client.HTTPConnection | None = None
        used = 0
        while time.monotonic() < until and (ticket := self._ticket()) is not None:
            began = time.monotonic()
            try:
                if connection is None:
                    connection, used = self._connect(ticket), 0
                answer = self._ask(connection, began)
                used += 1
                closes = used >= load.per_connection
            except (OSError, http.client.HTTPException) as error:
                answer = Answer(began=began, ended=time.monotonic(), error=f"{type(error).__name__}: {error}")
                closes = True
            if closes and connection is not None:
                connection.close()
                connection = None
            with self._lock:
                print(json.dumps(attrs.asdict(answer)), flush=True)
            if load.pause_s:
                time.sleep(load.pause_s)

    def _ask(self, connection: http.client.HTTPConnection, began: float) -> Answer:
        load = self._load
        fields = {"Host": load.name, "Accept-Encoding": "identity"}
        if self._cookie:
            fields["Cookie"] = self._cookie
        connection.request(load.method, load.path, headers=fields)
        response = connection.getresponse()
        content = response.read()
        given = (response.getheader("Set-Cookie") or "").partition(";")[0]
        if given and load.keep_cookies:
            self._cookie = given
        return Answer(
            began=began,
            ended=time.monotonic(),
            status=response.status,
            node=response.getheader(NODE_FIELD) or "",
            backend=response.getheader(BACKEND_FIELD) or "",
            cookie=given,
            octets=len(content),
        )


def main(argument: str) -> None:
    """Ask as ``argument``, a JSON object of :class:`Load`'s fields, says."""
    values: dict[str, Any] = json.loads(argument)
    values["sources"] = tuple(values.get("sources", ()))
    load = Load(**values)
    lock = threading.Lock()
    tickets = iter(range(load.count or 10_000_000))
    clients = [_Client(load, number, tickets, lock) for number in range(load.threads)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(load.seconds + load.timeout_s + 5)


if __name__ == "__main__":
    main(sys.argv[1] if sys.argv[1].startswith("{") else Path(sys.argv[1]).read_text())
