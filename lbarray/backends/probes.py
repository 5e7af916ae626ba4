"""Looking at back ends: a connection, or a small HTTP request."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.http.events import Fields, ResponseHead
from lbarray.http.limits import Limits
from lbarray.http.refusals import BadMessage
from lbarray.http.responses import ResponseParser
from lbarray.interfaces import IHealthProbe
from lbarray.values import BackendAddress

__all__ = ["HttpProbe", "ProbeRequest", "TcpProbe"]


@attrs.frozen
class ProbeRequest:
    """What an HTTP probe asks, and which statuses it likes (both ends included)."""

    path: str
    host: str
    lowest: int
    highest: int


class _Probing(Protocol):
    """One look; fires its Deferred once and closes."""

    transport: Any

    def __init__(self, request: ProbeRequest | None) -> None:
        self.done: Deferred[Seen] | None = Deferred(self._cancelled)
        self._request = request
        self._parser = ResponseParser(self, Limits())

    def connectionMade(self) -> None:
        if self._request is None:
            self.tell(Seen(True, "connected"))
            return
        self._parser.expect(b"GET")
        self.transport.write(
            f"GET {self._request.path} HTTP/1.1\r\nHost: {self._request.host}\r\n"
            "User-Agent: lbarray-probe\r\nConnection: close\r\n\r\n".encode()
        )

    def dataReceived(self, data: bytes) -> None:
        if self.done is None:
            return
        try:
            self._parser.feed(data)
        except BadMessage as error:
            self.tell(Seen(False, f"no HTTP response: {error}"))

    def response_head(self, head: ResponseHead) -> None:
        request = self._request
        if request is None or head.status < 200:
            return
        good = request.lowest <= head.status <= request.highest
        wanted = "" if good else f", wanted {request.lowest} to {request.highest}"
        self.tell(Seen(good, f"status {head.status}{wanted}"))

    def response_body(self, data: bytes) -> None:
        """The head was enough."""

    def response_trailers(self, fields: Fields) -> None:
        """Not looked at."""

    def response_switch(self, head: ResponseHead, data: bytes) -> None:
        """Never asked for."""

    def response_end(self, reusable: bool) -> None:
        """The head was enough."""

    def tell(self, seen: Seen) -> None:
        done, self.done = self.done, None
        if done is not None:
            if self.transport is not None:
                self.transport.abortConnection()
            done.callback(seen)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.tell(Seen(False, "closed the connection before it answered"))

    def _cancelled(self, _: object) -> None:
        self.done = None
        if self.transport is not None:
            self.transport.abortConnection()


class _ProbeFactory(ClientFactory):
    noisy = False

    def __init__(self, probing: _Probing) -> None:
        self._probing = probing

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._probing

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._probing.tell(Seen(False, reason.getErrorMessage().rstrip(".")))


class _Probe:
    def __init__(self, *, reactor: Any, timeout_s: float) -> None:
        self._reactor = reactor
        self._timeout_s = timeout_s

    def _look(self, backend: BackendAddress, request: ProbeRequest | None) -> Deferred[Seen]:
        probing = _Probing(request)
        assert probing.done is not None
        done = probing.done
        connector = self._reactor.connectTCP(
            backend.host, backend.port, _ProbeFactory(probing), timeout=self._timeout_s
        )

        def late() -> None:
            probing.tell(Seen(False, f"no answer within {self._timeout_s:g} s"))
            connector.disconnect()

        call = self._reactor.callLater(self._timeout_s, late)

        def over(result: Any) -> Any:
            if call.active():
                call.cancel()
            return result

        return done.addBoth(over)


@implementer(IHealthProbe)
class TcpProbe(_Probe):
    """A back end that takes a connection is well."""

    def probe(self, backend: BackendAddress) -> Deferred[Seen]:
        return self._look(backend, None)


@implementer(IHealthProbe)
class HttpProbe(_Probe):
    """A back end that answers with a status of the wanted range is well."""

    def __init__(self, *, reactor: Any, timeout_s: float, path: str, host: str | None, expect: tuple[int, int]) -> None:
        super().__init__(reactor=reactor, timeout_s=timeout_s)
        self._path = path
        self._host = host
        self._expect = expect

    def probe(self, backend: BackendAddress) -> Deferred[Seen]:
        host = self._host or f"{backend.host}:{backend.port}"
        return self._look(backend, ProbeRequest(self._path, host, *self._expect))
