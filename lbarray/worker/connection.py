"""What every connection of a service has, whatever it speaks: the base for protocols of your own."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from lbarray.values import ClientAddress
from lbarray.worker.clients import Client

__all__ = ["ServedConnection"]


class ServedConnection(Protocol):
    """One client's connection, after the PROXY header and TLS where the service has them.

    A subclass extends :meth:`connectionMade` and :meth:`connectionLost` and moves ``deadline`` as it hears from its
    client; it may replace the rest.

    :param factory: the :class:`~lbarray.worker.factory.ClientFactory` of the service: scheduler of requests, connector
        to back ends, limits and counters.
    :param client: whose connections are counted; ``None`` where nothing is.
    :ivar deadline: when the sweep may end it, in the reactor's seconds.
    :ivar idle: it may be ended at any time without harm.
    """

    transport: Any
    idle = False

    def __init__(self, factory: Any, client: Client | None = None) -> None:
        self.factory = factory
        self.counted = client
        self.deadline = 0.0

    @property
    def client_address(self) -> ClientAddress:
        """Who it is."""
        peer = self.transport.getPeer()
        return ClientAddress(peer.host, peer.port, self.factory.tls)

    def moved(self) -> None:
        """Something was heard: the time of silence begins anew."""
        self.deadline = self.factory.seconds() + self.factory.limits.tunnel_timeout_s

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self.factory.accepted += 1
        self.moved()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self.factory.clients.left(self.counted)

    def timed_out(self) -> None:
        """``deadline`` has passed."""
        self.factory.counters.add("timeouts", "tunnel")
        self.transport.abortConnection()

    def stop(self) -> None:
        """The service stops: end what can be ended; what is left is cut off after ``stop_grace``."""
        if self.idle:
            self.transport.loseConnection()
