"""The status over HTTP, for programs and for curl; on loopback."""

from __future__ import annotations

import json
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.web.http import Request
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Site

from lbarray.console.metrics import exposition
from lbarray.console.tables import array_table, pools_table, services_table
from lbarray.console.view import NodeView
from lbarray.errors import SystemRefused

__all__ = ["StatusService"]


class _Text(Resource):
    isLeaf = True

    def __init__(self, content_type: str, make: Any) -> None:
        super().__init__()
        self._content_type = content_type.encode()
        self._make = make

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", self._content_type)
        request.setHeader(b"cache-control", b"no-store")
        body: bytes = self._make().encode()
        return body


def _tables(status: dict[str, object]) -> str:
    head = f"node {status['node']} of array {status['array']}, up {status['uptime_s']} s"
    parts = [head, array_table(status), services_table(status), pools_table(status)]
    return "\n\n".join(part for part in parts if part) + "\n"


def status_site(view: NodeView) -> Site:
    """``/status`` (JSON), ``/tables`` (text), ``/metrics`` (Prometheus), ``/healthz``."""
    root = Resource()
    root.putChild(b"status", _Text("application/json", lambda: json.dumps(view.status(), indent=1, default=str) + "\n"))
    root.putChild(b"tables", _Text("text/plain; charset=utf-8", lambda: _tables(view.status())))
    root.putChild(b"metrics", _Text("text/plain; version=0.0.4; charset=utf-8", lambda: exposition(view)))
    root.putChild(b"healthz", _Text("text/plain; charset=utf-8", lambda: "ok\n"))
    root.putChild(b"", NoResource("try /status, /tables, /metrics or /healthz"))
    site = _QuietSite(root)
    site.noisy = False
    return site


class _QuietSite(Site):
    def log(self, request: Request) -> None:
        """Who reads the status is no event."""


class StatusService(Service):
    """Listens for those who want to know.

    :param host: a loopback address: there is no password.
    """

    def __init__(self, *, reactor: Any, host: str, port: int, view: NodeView) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._view = view
        self._listening: Any = None

    def startService(self) -> None:
        """:raises SystemRefused: the port is taken."""
        try:
            self._listening = self._reactor.listenTCP(self._port, status_site(self._view), interface=self._host)
        except CannotListenError as error:
            raise SystemRefused(
                f"listen for the status on TCP {self._host}:{self._port}",
                errno=getattr(error.socketError, "errno", 0) or 0,
                advice=f"see who has it: ss -ltnp 'sport = :{self._port}'; or set console.status",
            ) from None
        super().startService()

    def stopService(self) -> Any:
        super().stopService()
        listening, self._listening = self._listening, None
        return listening.stopListening() if listening is not None else None
