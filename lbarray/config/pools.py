"""Who answers the requests: ``[pools.NAME]`` with its back ends, checks and persistence."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, HostPortText, Name, PathPrefix, PathText, Seconds, Text, between, one_of

__all__ = ["Backend", "Check", "Persistence", "Pool", "PoolTls"]


@attrs.frozen
class Backend:
    """``[pools.NAME.backends.NAME]``: one web server."""

    address: HostPortText
    weight: Annotated[int, between(1, 1000)] = 1


@attrs.frozen
class Check:
    """``[pools.NAME.check]``: how each node finds out whether a back end lives.

    :ivar kind: ``tcp`` connects; ``http`` also asks for ``path`` and wants a status of ``expect``.
    :ivar expect: lowest and highest status that count as well.
    :ivar fall: failures in a row until it is down; ``rise``: successes until it is up again.
    """

    kind: Annotated[str, one_of("tcp", "http")] = "tcp"
    path: PathPrefix = "/"
    host: Text | None = None
    expect: tuple[Annotated[int, between(100, 599)], Annotated[int, between(100, 599)]] = (200, 399)
    interval: Seconds = 2.0
    timeout: Seconds = 1.0
    rise: Annotated[int, between(1, 100)] = 2
    fall: Annotated[int, between(1, 100)] = 3


@attrs.frozen
class Persistence:
    """``[pools.NAME.persistence]``: the cookie that brings a client back to its back end."""

    cookie: Name = "LBARRAY"
    same_site: Annotated[str, one_of("Lax", "Strict", "None")] = "Lax"
    strip: Flag = True


@attrs.frozen
class PoolTls:
    """``[pools.NAME.tls]``: back ends are met over TLS 1.2 or 1.3; without the table, over plain TCP.

    :ivar verify: a back end must prove by its certificate that it is ``name``. Without, anybody on the way can be it.
    :ivar ca: PEM of the authorities that are believed; the system's when it is not given.
    :ivar name: the name asked for (server_name) and verified; the host of the back end's address when it is not given.
    :ivar certificate: PEM, shown to back ends that want one, with its ``key`` (or with the key in the same file).
    """

    verify: Flag = True
    ca: PathText | None = None
    name: Text | None = None
    certificate: PathText | None = None
    key: PathText | None = None


@attrs.frozen
class Pool:
    """``[pools.NAME]``: back ends that serve the same content.

    :ivar policy: how a request without a persistent back end gets one.
    :ivar proxy_protocol: 1 or 2: tell back ends who the client is by a PROXY header of this version. Their connections
        then belong to one client and are not kept for others.
    :ivar max_idle: idle connections kept per back end; ``idle_timeout`` closes them.
    """

    backends: dict[Name, Backend]
    policy: Annotated[str, one_of("round-robin", "least-outstanding")] = "round-robin"
    check: Check | None = None
    persistence: Persistence | None = None
    max_idle: Annotated[int, between(0, 10000)] = 128
    idle_timeout: Seconds = 30.0
    tls: PoolTls | None = None
    proxy_protocol: Annotated[int, between(1, 2)] | None = None
