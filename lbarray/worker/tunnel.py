"""Two connections that became one: WebSocket and what else was switched to (RFC 9110 §7.8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Tunnel"]


class Tunnel:
    """Passes octets between two transports, each at the pace of the other.

    Each side's end is passed on as an end of writing, so that the other direction may go on; when both
    have ended, or one side breaks, both are closed.

    :param moving: called when something passes.
    :param ended: called once, when neither side is of use any more.
    :ivar moved: octets to the back end, and to the client.
    """

    def __init__(self, client: Any, backend: Any, moving: Callable[[], None], ended: Callable[[], None]) -> None:
        self._client = client
        self._backend = backend
        self._moving = moving
        self._ended: Callable[[], None] | None = ended
        self._client_ended = False
        self._backend_ended = False
        self.moved = [0, 0]

    @property
    def backend_side(self) -> BackendSide:
        """For :meth:`lbarray.worker.backend.BackendConnection.become`."""
        return BackendSide(self)

    def start(self, to_backend: bytes, to_client: bytes) -> None:
        """Couple them; the first octets of both directions may have come already."""
        self._client.registerProducer(_Pace(self._backend), True)
        self._backend.registerProducer(_Pace(self._client), True)
        if to_backend:
            self.from_client(to_backend)
        if to_client:
            self.from_backend(to_client)

    def from_client(self, data: bytes) -> None:
        """Octets of the client."""
        self.moved[0] += len(data)
        self._moving()
        self._backend.write(data)

    def from_backend(self, data: bytes) -> None:
        """Octets of the back end."""
        self.moved[1] += len(data)
        self._moving()
        self._client.write(data)

    def client_ended(self) -> None:
        """The client sends no more."""
        self._client_ended = True
        self._half(self._backend)

    def backend_ended(self) -> None:
        """The back end sends no more."""
        self._backend_ended = True
        self._half(self._client)

    def _half(self, other: Any) -> None:
        if self._client_ended and self._backend_ended:
            self.close()
            return
        lose_write = getattr(other, "loseWriteConnection", None)
        if lose_write is None:
            self.close()  # TLS has no half-close that all peers understand
            return
        # A producer that never ends would keep the transport from closing its side.
        other.unregisterProducer()
        lose_write()

    def close(self) -> None:
        """End both sides once what was written is out."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        for transport in (self._client, self._backend):
            transport.unregisterProducer()
            # Whoever was paused must read again, or it never hears the other side's end.
            transport.resumeProducing()
            transport.loseConnection()
        ended()

    def abort(self) -> None:
        """End both sides now."""
        ended, self._ended = self._ended, None
        if ended is None:
            return
        for transport in (self._client, self._backend):
            transport.abortConnection()
        ended()


class BackendSide:
    """What the back end's connection of a tunnel tells."""

    def __init__(self, tunnel: Tunnel) -> None:
        self.data = tunnel.from_backend
        self.ended = tunnel.backend_ended
        self.lost = tunnel.close


class _Pace:
    """Stands for one transport as the producer of the other."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def pauseProducing(self) -> None:
        self._source.pauseProducing()

    def resumeProducing(self) -> None:
        self._source.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going away; its protocol hears that."""
