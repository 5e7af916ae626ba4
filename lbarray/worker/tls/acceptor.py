"""From an accepted socket to a protocol over TLS: the handshake, its time-out, its limits, and what it found out."""

from __future__ import annotations

import base64
import socket
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from lbarray.telemetry.counters import Counters
from lbarray.worker.tls.limiter import HandshakeLimiter
from lbarray.worker.tls.store import CertificateStore
from lbarray.worker.tls.stream import TlsStream
from lbarray.worker.tls.tickets import HandshakeSessions

__all__ = ["TlsAcceptor", "client_certificate_field"]


def client_certificate_field(der: bytes) -> bytes:
    """The line that tells a back end of a verified client certificate (``Client-Cert``, RFC 9440 §2.2)."""
    return b"Client-Cert: :%b:\r\n" % base64.b64encode(der)


class TlsAcceptor:
    """Shakes hands for one service.

    :param factory: builds the protocol once the handshake is done.
    :param timeout_s: how long a handshake may take.
    :param tells_sessions: protocols learn of their client's TLS session; the store's policy has to tell of it too.
    :ivar shaking: handshakes in progress, with the time at which each began, the oldest first.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        factory: Any,
        store: CertificateStore,
        limiter: HandshakeLimiter,
        timeout_s: float,
        asks_clients: bool,
        counters: Counters,
        tells_sessions: bool = False,
    ) -> None:
        self.reactor = reactor
        self.factory = factory
        self.store = store
        self.shaking: dict[TlsStream, float] = {}
        self.full = 0
        self.resumed = 0
        self._limiter = limiter
        self._timeout_s = timeout_s
        self._asks_clients = asks_clients
        self._tells_sessions = tells_sessions
        self._counters = counters

    def begin(self, sock: socket.socket, peer: Any) -> None:
        """Take a connection; refuse it without a word when its address asks for too much."""
        now = self.reactor.seconds()
        refused = self._limiter.begin(peer.host, now)
        if refused:
            self._counters.add("tls_refused", refused)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            return
        connection = SSL.Connection(self.store.context, sock)
        connection.set_accept_state()
        if self._tells_sessions:
            connection.set_app_data(HandshakeSessions())
        stream = TlsStream(
            sock, self.reactor, connection, ready=self._ready, failed=self._failed, peer=peer, corked=True
        )
        self.shaking[stream] = now
        stream.begin()

    def _over(self, stream: TlsStream) -> None:
        if self.shaking.pop(stream, None) is not None:
            self._limiter.end(stream.getPeer().host)

    def _failed(self, stream: TlsStream, why: str) -> None:
        self._over(stream)
        self._counters.add("tls_handshake_failed", why)

    def _ready(self, stream: TlsStream) -> None:
        self._over(stream)
        if stream.resumed:
            self.resumed += 1
        else:
            self.full += 1
        if self._asks_clients:
            certificate = stream.tls.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                stream.client_fields = client_certificate_field(certificate.public_bytes(Encoding.DER))
        if self._tells_sessions:
            stream.tls_session = stream.tls.get_app_data().session()
        protocol = self.factory.buildProtocol(stream.getPeer())
        if protocol is None:
            stream.abortConnection()
            return
        stream.protocol = protocol
        stream.open()

    def __len__(self) -> int:
        """How many handshakes are in progress."""
        return len(self.shaking)

    def sweep(self) -> None:
        """End the handshakes that take too long. Called about twice a second."""
        now = self.reactor.seconds()
        late = []
        for stream, began in self.shaking.items():
            if now - began < self._timeout_s:
                break
            late.append(stream)
        for stream in late:
            stream.fail("timed_out")
        self._limiter.forget(now)

    def stop(self) -> None:
        """Nobody is waited for any more."""
        for stream in list(self.shaking):
            stream.fail("stopped")

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "handshakes": self.full,  # full ones
            "resumed": self.resumed,
            "shaking": len(self.shaking),
            "certificates": self.store.status(),
        }
