"""Who is connected, and how much each client may ask; the cost does not grow with the number of clients."""

from __future__ import annotations

import math
from ipaddress import IPv6Address

from lbarray.http.limits import Limits

__all__ = ["Client", "Clients"]


class Client:
    """One client address, or the /64 network of an IPv6 one (a host has the whole of it).

    :ivar connections: open now.
    :ivar next_s: its next request is due then if it asks evenly (GCRA, ITU-T I.371: a token bucket in one number).
    """

    __slots__ = ("connections", "next_s")

    def __init__(self) -> None:
        self.connections = 0
        self.next_s = 0.0


class Clients:
    """The clients of all services of this process."""

    def __init__(self, limits: Limits) -> None:
        self.connections = 0
        self._clients: dict[str, Client] = {}
        self.use(limits)

    def use(self, limits: Limits) -> None:
        """These limits hold from now on; connections that are open stay."""
        self._max_connections = limits.max_connections
        self._client_connections = limits.client_connections
        self._interval_s = 1.0 / limits.client_requests_per_s if limits.client_requests_per_s else 0.0
        self._ahead_s = self._interval_s * max(0, limits.client_burst - 1)
        #: Requests are counted at all.
        self.limits_requests = bool(self._interval_s)
        self._counts = self.limits_requests or bool(self._client_connections)

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def crowded(self) -> bool:
        """Over four fifths of the connections that there may be: idle ones should make room."""
        return bool(self._max_connections) and self.connections * 5 > self._max_connections * 4

    def find(self, host: str) -> Client:
        """The client of an address."""
        key = _network(host) if ":" in host else host
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = Client()
        return client

    def connected(self, host: str, *, exempt: bool = False) -> tuple[Client | None, str]:
        """A new connection: (the client, if anything of it is counted; why it is refused, empty if it is not).

        :param exempt: the limit for one client does not hold for it: a trusted hop, which has many behind it.
        """
        if self._max_connections and self.connections >= self._max_connections:
            return None, "node"
        if not self._counts or exempt:
            self.connections += 1
            return None, ""
        client = self.find(host)
        if self._client_connections and client.connections >= self._client_connections:
            return None, "client"
        client.connections += 1
        self.connections += 1
        return client, ""

    def left(self, client: Client | None) -> None:
        """A connection that was not refused has ended."""
        self.connections -= 1
        if client is not None:
            client.connections -= 1

    def wait_s(self, client: Client, now: float) -> int:
        """0 when its request may be served; otherwise whole seconds until the next one may."""
        due = max(client.next_s, now)
        if due - now > self._ahead_s:
            return max(1, math.ceil(due - now - self._ahead_s))
        client.next_s = due + self._interval_s
        return 0

    def forget(self, now: float) -> None:
        """Drop whoever has no connection and nothing to wait for."""
        gone = [key for key, client in self._clients.items() if not client.connections and client.next_s <= now]
        for key in gone:
            del self._clients[key]


def _network(host: str) -> str:
    return str(IPv6Address(int(IPv6Address(host)) >> 64 << 64))
