"""Who is connected, and how much each client may ask; the cost does not grow with the number of clients."""

from __future__ import annotations

import math
from ipaddress import IPv6Address
from typing import Any

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
    """The clients of all services of this process.

    :param counts: where this process writes its connections, and finds those of the node's other ones; see
        :class:`lbarray.worker.processes.counts.ConnectionCounts`. Without it this process is alone.
    """

    def __init__(self, limits: Limits, counts: Any = None) -> None:
        self.connections = 0
        self._counts = counts
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
        self._counts_clients = self.limits_requests or bool(self._client_connections)

    def __len__(self) -> int:
        return len(self._clients)

    @property
    def crowded(self) -> bool:
        """Over four fifths of the connections that there may be: idle ones should make room."""
        return bool(self._max_connections) and self.everywhere * 5 > self._max_connections * 4

    @property
    def everywhere(self) -> int:
        """Connections of all processes of the node."""
        if self._counts is None:
            return self.connections
        everywhere: int = self._counts.total
        return everywhere

    def _count(self, more: int) -> None:
        self.connections += more
        if self._counts is not None:
            self._counts.set(self.connections)

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
        # First counted, then asked: two processes that take the last place at once are both refused, never both let in.
        self._count(1)
        if self._max_connections and self.everywhere > self._max_connections:
            self._count(-1)
            return None, "node"
        if not self._counts_clients or exempt:
            return None, ""
        client = self.find(host)
        if self._client_connections and client.connections >= self._client_connections:
            self._count(-1)
            return None, "client"
        client.connections += 1
        return client, ""

    def left(self, client: Client | None) -> None:
        """A connection that was not refused has ended."""
        self._count(-1)
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
