"""Who answers the requests: ``[pools.NAME]`` with its back ends, checks, limits and persistence."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import (
    Flag,
    HashKey,
    HostPortText,
    Name,
    PathPrefix,
    PathText,
    Pattern,
    Port,
    Seconds,
    Text,
    between,
    number,
    one_of,
)

__all__ = ["Backend", "Check", "Discover", "Eject", "Persistence", "Pool", "PoolTls"]


@attrs.frozen
class Backend:
    """``[pools.NAME.backends.NAME]``: one web server.

    :ivar weight: its part of the pool's requests, relative to the others'.
    :ivar backup: gets requests only while no other back end of the pool can serve.
    :ivar drain: gets no new clients; those that are bound to it still come.
    :ivar max_requests: so many at once from each worker process; 0 means no limit.
    :ivar max_connections: so many connections, busy and idle together; 0 means no limit.
    """

    address: HostPortText
    weight: Annotated[int, between(1, 1000)] = 1
    backup: Flag = False
    drain: Flag = False
    max_requests: Annotated[int, between(0, 100000)] = 0
    max_connections: Annotated[int, between(0, 100000)] = 0


@attrs.frozen
class Check:
    """``[pools.NAME.check]``: how each node finds out whether a back end lives.

    :ivar kind: ``tcp`` connects; ``http`` also asks for ``path``; ``tls`` makes a TLS handshake; ``script`` runs
        ``command``; or what a plug-in brings.
    :ivar host: the Host field (``http``) or the server name (``tls``).
    :ivar method: of the request; :ivar send: fields that it carries besides.
    :ivar expect: lowest and highest status that count as well.
    :ivar expect_body: regular expression that must be found in the first 64 KiB of the content.
    :ivar expect_fields: fields that the response must have; the value exactly, or ``~`` and a regular expression.
    :ivar command: program and arguments; address, port, pool and name of the back end follow. Exit code 0 is well.
    :ivar port: another one than the back end's, such as that of a health agent.
    :ivar tls: ``http`` over TLS; left out: as the pool's requests go. The certificate is not looked at.
    :ivar proxy_protocol: version of the PROXY header that goes first (``http``, ``tls``); left out: as the pool's.
    :ivar fall: failures in a row until it is down; ``rise``: successes until it is up again.
    :ivar shared: nodes of the array tell each other what they saw, so that N of them ask little more than one.
    """

    kind: Name = "tcp"
    path: PathPrefix = "/"
    host: Text | None = None
    method: Annotated[str, one_of("GET", "HEAD", "OPTIONS")] = "GET"
    send: dict[Name, Text] = attrs.field(factory=dict)
    expect: tuple[Annotated[int, between(100, 599)], Annotated[int, between(100, 599)]] = (200, 399)
    expect_body: Pattern | None = None
    expect_fields: dict[Name, Text] = attrs.field(factory=dict)
    command: tuple[Text, ...] = ()
    port: Port | None = None
    tls: Flag | None = None
    proxy_protocol: Annotated[int, between(1, 2)] | None = None
    interval: Seconds = 2.0
    timeout: Seconds = 1.0
    rise: Annotated[int, between(1, 100)] = 2
    fall: Annotated[int, between(1, 100)] = 3
    shared: Flag = False


@attrs.frozen
class Eject:
    """``[pools.NAME.eject]``: back ends whose answers are bad get no requests for a while (passive health).

    :ivar consecutive: failures in a row that eject (no connection, broken, timed out, status 5xx); 0 switches it off.
    :ivar error_percent: failures among the requests of a ``window`` that eject; 0 switches it off.
    :ivar latency_factor: ejects what is so many times slower than the pool's median; 0 switches it off.
    :ivar min_requests: a window with fewer requests of a back end says nothing of it.
    :ivar base: how long the first ejection lasts; each further one lasts that much longer, up to ``longest``.
    :ivar min_percent: part of the pool that is never ejected, however bad it is.
    """

    consecutive: Annotated[int, between(0, 1000)] = 5
    error_percent: Annotated[int, between(0, 100)] = 50
    latency_factor: Annotated[float, number(0.0, 1000.0)] = 0.0
    min_requests: Annotated[int, between(1, 100000)] = 20
    window: Seconds = 10.0
    base: Seconds = 10.0
    longest: Seconds = 300.0
    min_percent: Annotated[int, between(0, 100)] = 50


@attrs.frozen
class Persistence:
    """``[pools.NAME.persistence]``: what brings a client back to its back end.

    :ivar kind: ``cookie``: a cookie of ours that names the back end; ``learnt``: the application's own session id;
        ``hash``: a key of the request, by groups; ``tls``: the client's TLS session.
    :ivar cookie: name of our cookie (``cookie``).
    :ivar secure: the cookie's attribute; left out: on TLS only.
    :ivar max_age: how long browsers keep the cookie, from when it is given; left out: as long as they run.
    :ivar strip: the back end does not see the cookie.
    :ivar session_cookie: the application's cookie (``learnt``), such as ``JSESSIONID``.
    :ivar session_header: a field that has the id in requests and responses (``learnt``).
    :ivar session_query: a parameter of the URL, also as ``;name=…`` in the path (``learnt``).
    :ivar ttl: a session that nobody has used for so long is forgotten (``learnt``, ``tls``).
    :ivar entries: sessions remembered at most, the least recently used go first (``learnt``, ``tls``: one to three for
        each connection of TLS).
    :ivar by: the key (``hash``): ``client``, ``header:NAME``, ``cookie:NAME``, ``query:NAME``, ``host``, ``path`` or
        ``url``.
    :ivar prefix4: clients of one IPv4 network of this length belong together (``hash`` by ``client``,
        and ``tls`` for clients that have no session);
        ``prefix6`` likewise for IPv6.
    :ivar groups: parts of the key space (``hash``): memory is by these, not by clients. The more, the evener.
    :ivar idle: while a back end drains, groups that nobody has used for so long leave it (``hash``).
    """

    kind: Annotated[str, one_of("cookie", "learnt", "hash", "tls")] = "cookie"
    cookie: Name = "LBARRAY"
    same_site: Annotated[str, one_of("Lax", "Strict", "None")] = "Lax"
    secure: Flag | None = None
    http_only: Flag = True
    path: PathPrefix = "/"
    domain: Name | None = None
    max_age: Seconds | None = None
    strip: Flag = True
    session_cookie: Name | None = None
    session_header: Name | None = None
    session_query: Name | None = None
    ttl: Seconds = 1800.0
    entries: Annotated[int, between(16, 10_000_000)] = 100_000
    by: HashKey = "client"
    prefix4: Annotated[int, between(1, 32)] = 32
    prefix6: Annotated[int, between(1, 128)] = 64
    groups: Annotated[int, between(64, 8192)] = 8192
    idle: Seconds = 600.0


@attrs.frozen
class Discover:
    """``[pools.NAME.discover]``: back ends by DNS, besides those that are named.

    Names are asked again when the answers' time to live is over. A name that cannot be resolved changes nothing.

    :ivar name: the name to ask for; :ivar kind: ``address`` (A and AAAA records) or ``srv`` (RFC 2782: ports and
        weights come from the records, and of several priorities the best is used).
    :ivar port: of every back end (``address``).
    :ivar servers: name servers, ``address:port``; none means those of ``/etc/resolv.conf``.
    :ivar shortest: not asked more often than this, whatever the time to live says; ``longest`` likewise.
    """

    name: Text
    kind: Annotated[str, one_of("address", "srv")] = "address"
    port: Port = 80
    servers: tuple[HostPortText, ...] = ()
    shortest: Seconds = 1.0
    longest: Seconds = 300.0


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

    :ivar policy: how a request that belongs to nobody gets its back end: ``round-robin``, ``least-outstanding``,
        ``peak-ewma``, ``consistent-hash``, ``random``, or what a plug-in brings.
    :ivar hash_by: the key of ``consistent-hash``: ``url``, ``path``, ``host``, ``client``, ``header:NAME``,
        ``cookie:NAME`` or ``query:NAME``.
    :ivar slack: percent by which a back end may have more than its part before its keys spill (``consistent-hash``).
    :ivar max_requests: of the whole pool at once, from each worker process; 0 means no limit.
    :ivar max_connections: to the whole pool, busy and idle together, likewise: idle ones are closed for others.
    :ivar queue: requests that may wait for room; 0 refuses at once. ``queue_timeout``: for so long.
    :ivar concurrency: ``adaptive`` finds each back end's limit out by its latency; ``fixed`` keeps to ``max_requests``.
    :ivar retries: other back ends that a request may be tried at. ``retry_percent``: repeats among all requests.
    :ivar slow_start: a back end that has recovered, or has come while others served, gets its whole part only after so
        long.
    :ivar proxy_protocol: 1 or 2: tell back ends who the client is by a PROXY header of this version. Their connections
        then belong to one client and are not kept for others.
    :ivar max_idle: idle connections kept per back end; ``idle_timeout`` closes them.
    """

    backends: dict[Name, Backend] = attrs.field(factory=dict)
    policy: Name = "round-robin"
    hash_by: HashKey = "url"
    slack: Annotated[int, between(1, 1000)] = 25
    check: Check | None = None
    persistence: Persistence | None = None
    eject: Eject = attrs.field(factory=Eject)
    discover: Discover | None = None
    max_requests: Annotated[int, between(0, 1_000_000)] = 0
    max_connections: Annotated[int, between(0, 1_000_000)] = 0
    queue: Annotated[int, between(0, 100_000)] = 0
    queue_timeout: Seconds = 5.0
    concurrency: Annotated[str, one_of("fixed", "adaptive")] = "fixed"
    retries: Annotated[int, between(0, 10)] = 2
    retry_percent: Annotated[int, between(0, 100)] = 20
    slow_start: Seconds | None = None
    max_idle: Annotated[int, between(0, 10000)] = 128
    idle_timeout: Seconds = 30.0
    tls: PoolTls | None = None
    proxy_protocol: Annotated[int, between(1, 2)] | None = None
