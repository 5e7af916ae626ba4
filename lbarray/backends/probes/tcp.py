"""Looking at a back end by a connection; and what all probes over connections have in common."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.config.pools import Check
from lbarray.interfaces import IHealthProbe
from lbarray.values import BackendAddress

__all__ = ["ConnectionProbe", "Probing", "TcpProbe"]


_PREAMBLES = {
    None: b"",
    1: b"PROXY UNKNOWN\r\n",
    2: b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
}


class Probing(Protocol):
    """One look at one back end; fires its Deferred once and closes."""

    transport: Any

    def __init__(self) -> None:
        self.done: Deferred[Seen] | None = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        self.tell(Seen(True, "connected"))

    def tell(self, seen: Seen) -> None:
        """This is what it saw; what comes later does not count."""
        done, self.done = self.done, None
        if done is not None:
            self._close()
            done.callback(seen)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.tell(Seen(False, "closed the connection before it answered"))

    def _cancelled(self, _: object) -> None:
        self.done = None
        self._close()

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.abortConnection()


class _ProbeFactory(ClientFactory):
    noisy = False

    def __init__(self, probing: Probing) -> None:
        self._probing = probing

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._probing

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._probing.tell(Seen(False, reason.getErrorMessage().rstrip(".")))


class ConnectionProbe:
    """Connects and gives the connection to a :class:`Probing`, which has ``check.timeout`` in all."""

    def __init__(self, reactor: Any, check: Check) -> None:
        self.reactor = reactor
        self.check = check

    @property
    def preamble(self) -> bytes:
        """The PROXY header of a connection that is nobody's (PROXY protocol, §2.1 ``UNKNOWN``, §2.2 ``LOCAL``)."""
        return _PREAMBLES[self.check.proxy_protocol]

    def probing(self, backend: BackendAddress) -> Probing:
        """What looks at the connection."""
        return Probing()

    def wrapped(self, factory: ClientFactory, backend: BackendAddress) -> Any:
        """The factory that connects, where more than TCP is wanted."""
        return factory

    def probe(self, backend: BackendAddress) -> Deferred[Seen]:
        """Look once."""
        if self.check.port is not None:
            backend = attrs.evolve(backend, port=self.check.port)
        probing = self.probing(backend)
        assert probing.done is not None
        done = probing.done
        timeout_s = self.check.timeout
        factory = self.wrapped(_ProbeFactory(probing), backend)
        connector = self.reactor.connectTCP(backend.host, backend.port, factory, timeout=timeout_s)

        def late() -> None:
            probing.tell(Seen(False, f"no answer within {timeout_s:g} s"))

        call = self.reactor.callLater(timeout_s, late)

        def over(result: Any) -> Any:
            if call.active():
                call.cancel()
            connector.disconnect()  # also what is not connected yet, when the look is cancelled
            return result

        return done.addBoth(over)


@implementer(IHealthProbe)
class TcpProbe(ConnectionProbe):
    """A back end that takes a connection is well."""
