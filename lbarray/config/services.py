"""What clients meet: ``[services.NAME]``, ``[[routes]]`` and ``[worker]``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import (
    Flag,
    Interface,
    IpAddress,
    Name,
    PathPrefix,
    PathText,
    Port,
    Seconds,
    Text,
    between,
    one_of,
)

__all__ = ["Route", "Service", "Tls", "Worker"]


@attrs.frozen
class Tls:
    """``[services.NAME.tls]``: PEM files; the certificate first in its file, then its chain."""

    certificate: PathText
    key: PathText


@attrs.frozen
class Service:
    """``[services.NAME]``: an address and port that clients connect to.

    :ivar vip: one of ``array.vips``; in a standalone node use ``address``.
    :ivar hash: which packets keep together: ``client`` (the default with TLS, so that sessions
        are found again) or ``connection``.
    :ivar upgrades: protocols that a client may switch to (``Upgrade``); all others are ignored.
    :ivar hash_prefix4: with ``client``, how many bits of an IPv4 address make one client: 24 keeps a neighbourhood on
        one node. :ivar hash_prefix6: of an IPv6 address; hosts change the lower 64 as they like.
    """

    port: Port
    vip: IpAddress | None = None
    address: IpAddress | None = None
    tls: Tls | None = None
    hash: Annotated[str, one_of("client", "connection")] | None = None
    upgrades: tuple[Text, ...] = ("websocket",)
    hash_prefix4: Annotated[int, between(0, 32)] = 32
    hash_prefix6: Annotated[int, between(0, 128)] = 64


@attrs.frozen
class Route:
    """``[[routes]]``: requests of this host and path go to this pool. The most exact one wins.

    :ivar host: a name, ``*.example.net`` or ``*``.
    :ivar services: names of the services it holds for; none given means all.
    """

    pool: Name
    host: Text = "*"
    path: PathPrefix = "/"
    services: tuple[Name, ...] = ()


@attrs.frozen
class Worker:
    """``[worker]``: how clients' connections are served.

    :ivar expose: tell in each response which node and back end made it
        (``X-Lbarray-Node``, ``X-Lbarray-Backend``); for tests and troubleshooting.
    :ivar max_head: octets of a request's or response's head.
    :ivar max_body: octets of a request's content.
    :ivar header_timeout: from a request's first octet to the end of its head.
    :ivar body_timeout: the time over which content must come at ``body_rate`` octets a second at least.
    :ivar keepalive_timeout: a connection without a request.
    :ivar connect_timeout: until a back end takes our connection.
    :ivar response_timeout: a back end's silence, or a client's that takes nothing more of its response.
    :ivar tunnel_timeout: silence of both sides after a switch of protocols.
    :ivar forwarded: how back ends are told of the client: ``x-forwarded`` (``X-Forwarded-For``, ``-Proto``,
        ``-Host``), ``forwarded`` (RFC 7239) or ``both``.
    :ivar trusted_hops: networks of proxies before us whose word on the client counts; all other clients'
        ``X-Forwarded-`` and ``Forwarded`` fields are dropped.
    :ivar stop_grace: how long running requests may take to end when the node stops.
    """

    expose: Flag = False
    max_head: Annotated[int, between(1024, 1 << 20)] = 32768
    max_body: Annotated[int, between(0, 1 << 40)] = 1 << 30
    header_timeout: Seconds = 10.0
    keepalive_timeout: Seconds = 60.0
    connect_timeout: Seconds = 3.0
    response_timeout: Seconds = 60.0
    body_timeout: Seconds = 30.0
    body_rate: Annotated[int, between(0, 1 << 30)] = 100
    tunnel_timeout: Seconds = 3600.0
    forwarded: Annotated[str, one_of("x-forwarded", "forwarded", "both")] = "x-forwarded"
    trusted_hops: tuple[Interface, ...] = ()
    stop_grace: Seconds = 10.0
