"""Who is at the other end of a client's connection, and what back ends are told of that."""

from __future__ import annotations

from lbarray.http.events import RequestHead
from lbarray.http.forwarding import Forwarding
from lbarray.values import ClientAddress, TlsSession

__all__ = ["Peer"]


class Peer:
    """The client of one connection; behind a trusted hop, the client of one request.

    :param identity: lines that tell who the client has proved to be.
    :param session: the TLS session of the connection; a hop's is not its clients' and does not count.
    :ivar address: whom routes, limits and logs count.
    :ivar trusted: the peer is a hop whose word on forwarding counts.
    """

    __slots__ = ("_forwarding", "_host", "_identity", "_lines", "_peer", "address", "trusted")

    def __init__(
        self,
        forwarding: Forwarding,
        host: str,
        port: int,
        *,
        tls: bool,
        identity: bytes = b"",
        session: TlsSession | None = None,
    ) -> None:
        self._identity = identity
        self._forwarding = forwarding
        self.trusted = forwarding.trusts(host)
        self._peer = self.address = ClientAddress(host, port, tls, None if self.trusted else session)
        self._host: bytes | None = None
        self._lines = b""

    def lines(self, head: RequestHead) -> bytes:
        """The lines on forwarding for the head of a request; sets ``address``."""
        if head.forwarded:
            client, lines = self._forwarding.of_trusted(
                self._peer.host, head.forwarded, head.authority, tls=self._peer.tls
            )
            if client != self.address.host:
                self.address = ClientAddress(
                    client, 0 if client != self._peer.host else self._peer.port, self._peer.tls
                )
            return lines + self._identity
        if self.trusted:
            self.address = self._peer
        if head.authority != self._host:
            # The same for each request of a connection, but for the host.
            self._host = head.authority
            self._lines = self._forwarding.lines(self._peer.host, head.authority, tls=self._peer.tls) + self._identity
        return self._lines
