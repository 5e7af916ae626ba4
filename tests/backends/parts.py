"""What tests of back ends are made of."""

from __future__ import annotations

from lbarray.backends.connections import IdleConnections
from lbarray.backends.health import Health, Seen
from lbarray.backends.pool import Member
from lbarray.http.events import RequestHead
from lbarray.values import BackendAddress, ClientAddress

__all__ = ["BAD", "CLIENT", "GOOD", "get", "member", "members"]

GOOD, BAD = Seen(True, "status 200"), Seen(False, "refused")
CLIENT = ClientAddress("192.0.2.200", 4000)


def member(name: str, weight: int = 1, *, max_requests: int = 0, backup: bool = False) -> Member:
    """A member of the pool web that nobody has looked at."""
    return Member(
        address=BackendAddress("web", name, "192.0.2.1", 80),
        weight=weight,
        health=Health(rise=2, fall=3),
        idle=IdleConnections(max_idle=2, idle_timeout_s=10),
        max_requests=max_requests,
        backup=backup,
    )


def members(*weights: int) -> list[Member]:
    """Members w0, w1, … of these weights."""
    return [member(f"w{place}", weight) for place, weight in enumerate(weights)]


def get(target: bytes = b"/", *fields: tuple[bytes, bytes], host: bytes = b"a.example") -> RequestHead:
    """A request's head."""
    return RequestHead(b"GET", target, list(fields), host=host)
