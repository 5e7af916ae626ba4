"""The status over HTTP, for programs and for curl; on loopback."""

from __future__ import annotations

import json
from typing import Any

from twisted.web.http import Request
from twisted.web.resource import NoResource, Resource
from twisted.web.server import Site

from lbarray.console.listening import ConsolePort
from lbarray.console.metrics import exposition
from lbarray.console.tables import array_table, pools_table, services_table
from lbarray.console.view import NodeView

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


class StatusService(ConsolePort):
    """Listens for those who want to know, on a loopback address: there is no password."""

    purpose = "status"
    key = "console.status"

    def __init__(self, *, reactor: Any, host: str, port: int, view: NodeView) -> None:
        super().__init__(reactor=reactor, host=host, port=port)
        self._view = view

    def make_factory(self) -> Site:
        return status_site(self._view)
