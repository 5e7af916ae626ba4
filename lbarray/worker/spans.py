"""What a request leaves for a collector of traces (OpenTelemetry's semantic conventions for HTTP)."""

from __future__ import annotations

from lbarray.http.events import RequestHead
from lbarray.http.tracing import Recorded
from lbarray.telemetry.spans import CLIENT, SERVER, Span
from lbarray.values import BackendAddress

__all__ = ["spans_of"]

_VERSIONS = {(1, 0): "1.0", (1, 1): "1.1", (2, 0): "2"}


def spans_of(
    recorded: Recorded,
    *,
    request: RequestHead,
    status: int,
    client: str,
    service: str,
    route: str,
    tls: bool,
    began_s: float,
    ended_s: float,
    backend: BackendAddress | None,
    asked_s: float,
    attempts: int,
) -> list[Span]:
    """Its own span, and where a back end was asked that of asking. The query is left out: it may hold what is secret.

    :param backend: the last :class:`lbarray.values.BackendAddress`; ``None`` where nobody was asked.
    :param asked_s: when the first one was.
    """
    method = request.method.decode("latin-1")
    found = [
        Span(
            recorded.trace,
            recorded.span,
            recorded.parent,
            SERVER,
            f"{method} {route}" if route else method,
            began_s,
            ended_s,
            (
                ("http.request.method", method),
                ("url.scheme", "https" if tls else "http"),
                ("url.path", request.target.partition(b"?")[0].decode("latin-1")),
                ("server.address", request.host.decode("latin-1")),
                ("http.response.status_code", status),
                ("http.route", route),
                ("network.protocol.version", _VERSIONS.get(request.version, "")),
                ("client.address", client),
                ("lbarray.service", service),
            ),
            status >= 500,
        )
    ]
    if backend is not None:
        found.append(
            Span(
                recorded.trace,
                recorded.asking,
                recorded.span,
                CLIENT,
                f"{method} {backend.pool}",
                asked_s,
                ended_s,
                (
                    ("http.request.method", method),
                    ("server.address", backend.host),
                    ("server.port", backend.port),
                    ("http.response.status_code", status),
                    ("http.request.resend_count", attempts - 1),
                    ("lbarray.pool", backend.pool),
                    ("lbarray.backend", backend.name),
                ),
                status >= 500,
            )
        )
    return found
