"""A worker inside another Twisted application: its own web site behind it, a limit for each client in front.

Run it: ``python embedded.py``; then ask http://127.0.0.1:8080/.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import Application, IService
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site

from lbarray.config.load import parse
from lbarray.node.backend_parts import make_backends
from lbarray.node.worker_parts import make_rewriting, make_worker
from lbarray.telemetry.counters import Counters

CONFIG = """
[services.site]
address = "127.0.0.1"
port = {port}

[pools.application.backends]
here = {{ address = "127.0.0.1:{behind}" }}

[worker]
client_requests = 50
forwarded = "forwarded"
"""


class Hello(Resource):
    """The application: it sees who asked, as the worker tells it."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"asked by " + (request.getHeader(b"forwarded") or b"nobody") + b"\n"


def main(port: int) -> None:
    behind = reactor.listenTCP(0, Site(Hello()), interface="127.0.0.1").getHost().port  # type: ignore[attr-defined]
    config = parse(CONFIG.format(port=port, behind=behind))
    counters = Counters()
    backends = make_backends(reactor=reactor, config=config, secret=b"", counters=counters)
    rewriting = make_rewriting(reactor=reactor, config=config, counters=counters)
    worker = make_worker(
        reactor=reactor, config=config, node_name="", backends=backends, rewriting=rewriting, counters=counters
    )
    application = Application("embedded")
    for part in (backends, worker):
        part.setServiceParent(application)
    service = IService(application)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)  # type: ignore[attr-defined]
    print(f"http://127.0.0.1:{port}/", flush=True)
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
