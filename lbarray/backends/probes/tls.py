"""Looking at a back end by a TLS handshake."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, ITransport
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.backends.probes.tcp import ConnectionProbe, Probing
from lbarray.interfaces import IHealthProbe
from lbarray.values import BackendAddress

__all__ = ["TlsProbe", "over_tls"]


@implementer(IHandshakeListener)
class _Shaking(Probing):
    def connectionMade(self) -> None:
        """TCP alone is not enough."""

    def handshakeCompleted(self) -> None:
        """Keys are agreed upon."""
        self.tell(Seen(True, "handshake"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.tell(Seen(False, f"no handshake: {reason.getErrorMessage()[:120]}"))


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Does not ask who the other one is: whether a certificate is right is the requests' business."""

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_verify(SSL.VERIFY_NONE, lambda *_: True)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A fresh connection."""
        connection = SSL.Connection(self._context, None)
        if self._server_name:
            connection.set_tlsext_host_name(self._server_name.encode("idna"))
        return connection


class _AfterPreamble(TLSMemoryBIOProtocol):
    """A PROXY header goes first, in the clear."""

    factory: Any

    def makeConnection(self, transport: ITransport) -> None:
        if self.factory.preamble:
            transport.write(self.factory.preamble)
        super().makeConnection(transport)


def over_tls(factory: ClientFactory, server_name: str, preamble: bytes) -> Any:
    """A factory whose connections go over TLS; whoever answers is believed."""
    wrapped: Any = TLSMemoryBIOFactory(_Creator(server_name), True, factory)
    wrapped.protocol = _AfterPreamble
    wrapped.preamble = preamble
    return wrapped


@implementer(IHealthProbe)
class TlsProbe(ConnectionProbe):
    """A back end that completes a TLS handshake is well; its certificate is not looked at."""

    def probing(self, backend: BackendAddress) -> Probing:
        return _Shaking()

    def wrapped(self, factory: ClientFactory, backend: BackendAddress) -> Any:
        return over_tls(factory, self.check.host or "", self.preamble)
