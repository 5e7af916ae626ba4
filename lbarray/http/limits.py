"""How much and how long: sizes in octets, times in seconds."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen
class Limits:
    """What one client or back end may cost us.

    :ivar max_head: octets of a request's or response's head.
    :ivar max_fields: number of its fields.
    :ivar max_body: octets of a request's content.
    :ivar header_timeout_s: from a request's first octet to the end of its head.
    :ivar keepalive_timeout_s: a connection without a request.
    :ivar connect_timeout_s: until a back end takes our connection.
    :ivar response_timeout_s: a back end's silence while we wait for it, or a client's that takes nothing more.
    :ivar body_timeout_s: the time over which a client's content must come at ``body_rate`` octets a second at least.
    :ivar tunnel_timeout_s: silence of both sides of a tunnel.
    :ivar max_connections: clients' connections at once in all processes of the node; 0, as in the next three: no limit.
    :ivar client_connections: connections of one client address at once.
    :ivar client_requests_per_s: requests of one client address. :ivar client_burst: so many at once.
    :ivar h2_streams: streams that one client of HTTP/2 may have open at once.
    :ivar h2_resets_per_s: streams that it may reset; ten seconds' worth at once.
    :ivar h2_control_per_s: its frames that carry nothing (PING, SETTINGS, PRIORITY, empty DATA, …); the same.
    """

    max_head: int = 32768
    max_fields: int = 200
    max_body: int = 1 << 30
    header_timeout_s: float = 10.0
    keepalive_timeout_s: float = 60.0
    connect_timeout_s: float = 3.0
    response_timeout_s: float = 60.0
    body_timeout_s: float = 30.0
    body_rate: int = 100
    tunnel_timeout_s: float = 3600.0
    max_connections: int = 0
    client_connections: int = 0
    client_requests_per_s: float = 0.0
    client_burst: int = 20
    h2_streams: int = 100
    h2_resets_per_s: float = 20.0
    h2_control_per_s: float = 100.0
