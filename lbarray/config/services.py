"""What clients meet: ``[services.NAME]`` and ``[worker]``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import (
    Accepts,
    Flag,
    Interface,
    IpAddress,
    Name,
    NetworkText,
    PathText,
    Port,
    Seconds,
    Text,
    at_least_s,
    between,
    one_of,
)

__all__ = ["Certificate", "Service", "Tls", "Worker"]


@attrs.frozen
class Certificate:
    """``[[services.NAME.tls.certificates]]``: one more certificate, for the names in it.

    :ivar certificate: PEM, the certificate first, then its chain.
    :ivar key: PEM; when it is not given, the key is in the certificate's file.
    :ivar ocsp: an OCSP response (DER) to staple; another program keeps the file fresh.
    """

    certificate: PathText
    key: PathText | None = None
    ocsp: PathText | None = None


@attrs.frozen
class Tls(Certificate):
    """``[services.NAME.tls]``: the certificate for clients that name no other, and what is spoken.

    Of several certificates the one whose name the client asks for is shown; when one name has an ECDSA and an RSA
    certificate, the client's signature algorithms choose. Changed files are read within ``reload``; open connections
    keep what they began with.

    :ivar certificate: with ``key`` and ``ocsp`` as in ``certificates`` below.
    :ivar certificates: more of them.
    :ivar strict: refuse clients that ask for no name, or for one that no certificate has.
    :ivar profile: ``intermediate`` is TLS 1.2 and 1.3, ``modern`` is 1.3 only (Mozilla's server side TLS).
    :ivar client_certificates: ``optional`` or ``required``: clients show a certificate of ``client_ca``, and back ends
        are told of it in the field ``Client-Cert`` (RFC 9440), which clients cannot send themselves.
    :ivar client_ca: PEM of the authorities that are believed.
    :ivar handshake_timeout: how long a handshake may take.
    :ivar handshakes_at_once: of one client address; 0 for any number.
    :ivar handshakes_per_second: new ones of one client address in the long run, with a burst of four seconds' worth;
        0 for any number.
    :ivar reload: how often the files are looked at.
    """

    certificates: tuple[Certificate, ...] = ()
    strict: Flag = False
    profile: Annotated[str, one_of("intermediate", "modern")] = "intermediate"
    client_certificates: Annotated[str, one_of("off", "optional", "required")] = "off"
    client_ca: PathText | None = None
    handshake_timeout: Seconds = 10.0
    handshakes_at_once: Annotated[int, between(0, 1000000)] = 512
    handshakes_per_second: Annotated[int, between(0, 1000000)] = 0
    reload: Seconds = 10.0


@attrs.frozen
class Service:
    """``[services.NAME]``: an address and port that clients connect to.

    :ivar vip: one of ``array.vips``; in a standalone node use ``address``.
    :ivar proxies: networks whose connections must begin with a PROXY header (version 1 or 2): proxies in front of
        the array. Everybody else is a client, and no such header is looked for.
    :ivar hash: which packets keep together: ``client`` (the default with TLS, so that sessions
        are found again) or ``connection``.
    :ivar least_loaded: with ``connection``, the less loaded of two workers gets a new connection; without, only the
        workers' shares follow their load. It takes looking into a memory for every packet. ``client`` has no choice.
    :ivar protocol: what its clients speak: ``http``, or the name of a plug-in's protocol.
    :ivar upgrades: protocols that a client may switch to (``Upgrade``); all others are ignored.
    :ivar http2: offer HTTP/2 to clients over TLS.
    :ivar h2c: take it without TLS as well, from clients that begin with it.
    :ivar hash_prefix4: with ``client``, how many bits of an IPv4 address make one client: 24 keeps a neighbourhood on
        one node. :ivar hash_prefix6: of an IPv6 address; hosts change the lower 64 as they like.
    """

    port: Port
    vip: IpAddress | None = None
    address: IpAddress | None = None
    tls: Tls | None = None
    hash: Annotated[str, one_of("client", "connection")] | None = None
    least_loaded: Flag = True
    protocol: Name = "http"
    upgrades: tuple[Text, ...] = ("websocket",)
    http2: Flag = True
    h2c: Flag = False
    hash_prefix4: Annotated[int, between(0, 32)] = 32
    hash_prefix6: Annotated[int, between(0, 128)] = 64
    proxies: tuple[NetworkText, ...] = ()


def _processes(found: object) -> int | str:
    if found == "auto":
        return "auto"
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found <= 256:
        raise ValueError(found)
    return found


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
    :ivar max_connections: clients' connections at once, in all processes of the node together; more are refused, and
        idle ones make room before that. 0, as in the next two: no limit.
    :ivar client_connections: connections at once of one client address (of one /64 with IPv6).
    :ivar client_requests: requests a second of one client address; beyond it, and beyond ``client_burst`` at once, the
        answer is 429 with ``Retry-After``. Trusted hops are not limited, the clients that they tell of are.
    :ivar forwarded: how back ends are told of the client: ``x-forwarded`` (``X-Forwarded-For``, ``-Proto``,
        ``-Host``), ``forwarded`` (RFC 7239) or ``both``.
    :ivar trusted_hops: networks of proxies before us whose word on the client counts; all other clients'
        ``X-Forwarded-`` and ``Forwarded`` fields are dropped.
    :ivar processes: how many processes serve; ``"auto"`` is one for each processor that the daemon may use, and none on
        a machine with one. With 0 the node serves in its own process.
    :ivar watchdog: a worker process that says nothing for so long is killed, and another one takes its place.
    :ivar traces: a request without a trace gets one (``traceparent``, W3C Trace Context); one that has it keeps it
        either way.
    :ivar mss: octets that a client may send in one TCP segment; 0: what fits through the array's tunnels where a router
        lies between nodes, and what the interface allows otherwise.
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
    max_connections: Annotated[int, between(0, 10_000_000)] = 0
    client_connections: Annotated[int, between(0, 10_000_000)] = 0
    client_requests: Annotated[int, between(0, 10_000_000)] = 0
    client_burst: Annotated[int, between(1, 10_000_000)] = 20
    forwarded: Annotated[str, one_of("x-forwarded", "forwarded", "both")] = "x-forwarded"
    trusted_hops: tuple[Interface, ...] = ()
    traces: Flag = False
    mss: Annotated[int, between(0, 65495)] = 0
    stop_grace: Seconds = 10.0
    processes: Annotated[int | str, Accepts(_processes, 'a whole number from 0 to 256, or "auto"')] = "auto"
    watchdog: Annotated[float, at_least_s(2.0)] = 10.0
