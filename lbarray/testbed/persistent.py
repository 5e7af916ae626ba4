"""The testbed's configuration with a pool for each kind of persistence, and routes of every kind."""

from __future__ import annotations

from lbarray.testbed.nodes import BACKENDS, CLIENTS, SITE, VIP
from lbarray.testbed.visitors import Visit, Visits, Welcome

__all__ = ["KINDS", "first_path", "known_by", "visits", "with_pools"]

_ROUTES = """
[pools.{name}]
check = {{ kind = "http", path = "/health", interval = "300ms", timeout = "250ms", fall = 2, rise = 1, shared = true }}
persistence = {persistence}
[pools.{name}.backends]
{backends}
[[routes]]
path = "/{name}/"
pool = "{name}"
rewrite = {{ prefix = "/" }}
"""

KINDS = {
    "cookie": '{ cookie = "STAY" }',
    "hash": '{ kind = "hash", by = "header:X-Client" }',
    "learnt": '{ kind = "learnt", session_cookie = "JSESSIONID" }',
}


_NARROW = """
[pools.narrow]
queue = 100
queue_timeout = "5s"
check = {{ kind = "tcp", interval = "300ms", rise = 1 }}
[pools.narrow.backends]
{backends}
[[routes]]
path = "/narrow/"
pool = "narrow"
rewrite = {{ prefix = "/" }}
"""


def with_pools(text: str) -> str:
    """The testbed's configuration with a pool for each kind of persistence, a narrow one, and routes of every kind."""
    narrow = "\n".join(
        f'{name} = {{ address = "{address}:80", max_requests = 1 }}' for name, address in list(BACKENDS.items())[:1]
    )
    backends = "\n".join(f'{name} = {{ address = "{address}:80" }}' for name, address in BACKENDS.items())
    more = "".join(
        _ROUTES.format(name=name, persistence=persistence, backends=backends)
        for name, persistence in {**KINDS, "tls": '{ kind = "tls" }'}.items()
    )
    return (
        text
        + more
        + _NARROW.format(backends=narrow)
        + """
[[routes]]
path = "/moved"
redirect = { to = "https://{host}/small" }
[[routes]]
path = "/teapot"
answer = { status = 403, content = "no tea" }
[[routes]]
path = "/small"
pool = "web"
mirror = { pool = "hash" }
response_fields = { set = { X-Route = "small" } }
[[routes]]
pool = "web"
"""
    )


def visits(*them: Visit, connections: int = 16, rate: float = 0.0, patience_s: float = 10.0) -> Visits:
    """From all of the client's addresses."""
    return Visits(
        host=VIP,
        port=80,
        name=SITE,
        visits=them,
        sources=CLIENTS,
        connections=connections,
        rate=rate,
        patience_s=patience_s,
    )


def first_path(kind: str) -> str:
    """What a client asks that nobody knows yet."""
    return f"/{kind}/login" if kind == "learnt" else f"/{kind}/small"


def known_by(kind: str, number: int, welcome: Welcome | None = None) -> tuple[str, ...]:
    """What a client of this number brings, when it was welcomed before too."""
    more = (f"Cookie: {welcome.cookie}",) if welcome is not None and welcome.cookie else ()
    return (f"X-Client: {kind}-{number}", *more)
