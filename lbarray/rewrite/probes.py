"""Whether the CDN's hosts live: each is asked now and then, and a failing one gets no URLs written to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

__all__ = ["CdnHealth", "CdnProbes", "ProbeSettings"]


@attrs.frozen
class ProbeSettings:
    """How to ask: see ``[cdn.check]`` in :mod:`lbarray.config.cdn`."""

    scheme: str = "https"
    path: str = "/"
    lowest: int = 200
    highest: int = 399
    interval_s: float = 2.0
    timeout_s: float = 2.0
    rise: int = 2
    fall: int = 2
    connect: str | None = None


class CdnHealth:
    """Rise and fall of one host. Nobody has asked yet: it counts as well.

    :ivar alive: URLs may be written to it.
    :ivar said: by the last probe.
    """

    def __init__(self, rise: int, fall: int) -> None:
        self._needed = {True: rise, False: fall}
        self._row = 0
        self._last = True
        self.alive = True
        self.said = "not asked yet"
        self.since = 0.0

    def saw(self, passed: bool, said: str, now: float) -> bool:
        """A probe's result; true when the host came or went."""
        self._row = self._row + 1 if passed == self._last else 1
        self._last = passed
        self.said = said
        if passed == self.alive or self._row < self._needed[passed]:
            return False
        self.alive = passed
        self.since = now
        return True


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Where the hosts are, or one place that stands for all of them; certificates are the hosts' own."""

    def __init__(self, reactor: Any, settings: ProbeSettings) -> None:
        self._reactor = reactor
        self._settings = settings

    def endpointForURI(self, uri: URI) -> Any:
        host, port = uri.host.decode(), uri.port
        if self._settings.connect is not None:
            name, colon, number = self._settings.connect.rpartition(":")
            host, port = (
                (name.strip("[]"), int(number)) if colon and number.isdigit() else (self._settings.connect, port)
            )
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=self._settings.timeout_s)
        if uri.scheme == b"https":
            return wrapClientTLS(optionsForClientTLS(uri.host.decode()), endpoint)
        return endpoint


class _Enough(Protocol):
    """The head was enough."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class CdnProbes:
    """Asks every host, and tells which of them live whenever that changes.

    :param changed: hears the hosts that live, in their order.
    :param agent: an :class:`twisted.web.iweb.IAgent`; by default one that checks certificates as browsers do.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        hosts: Sequence[str],
        settings: ProbeSettings,
        changed: Callable[[Sequence[str]], None],
        agent: Any = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._changed = changed
        self._agent = agent
        self._call = LoopingCall(self._ask_all)
        self._call.clock = reactor
        self._asked: dict[str, Deferred[Any]] = {}
        self.health = {host: CdnHealth(settings.rise, settings.fall) for host in hosts}

    def start(self) -> None:
        """Ask at once, and from then on every interval."""
        if self._agent is None:
            pool = HTTPConnectionPool(self._reactor, persistent=False)
            self._agent = Agent.usingEndpointFactory(self._reactor, _Endpoints(self._reactor, self._settings), pool)
        self._call.start(self._settings.interval_s, now=True)

    def stop(self) -> None:
        """Ask no more."""
        if self._call.running:
            self._call.stop()
        for asked in list(self._asked.values()):
            asked.cancel()

    def _ask_all(self) -> None:
        for host in self.health:
            if host not in self._asked:
                self._ask(host)

    def _ask(self, host: str) -> None:
        settings = self._settings
        url = f"{settings.scheme}://{host}{settings.path}"
        headers = Headers({"User-Agent": ["lbarray-probe"]})
        asked = self._asked[host] = self._agent.request(b"GET", url.encode(), headers, None)
        asked.addTimeout(settings.timeout_s, self._reactor)
        asked.addCallbacks(self._answered, lambda failure: (False, failure.getErrorMessage() or failure.type.__name__))
        asked.addCallback(self._saw, host)
        asked.addErrback(lambda failure: self.log.failure("a probe of the CDN", failure))

    def _answered(self, response: Any) -> tuple[bool, str]:
        settings = self._settings
        response.deliverBody(_Enough())
        return settings.lowest <= response.code <= settings.highest, f"status {response.code}"

    def _saw(self, seen: tuple[bool, str], host: str) -> None:
        self._asked.pop(host, None)
        if not self._call.running:
            return
        health = self.health[host]
        if health.saw(*seen, self._reactor.seconds()):
            said = "lives again" if health.alive else "does not answer as it should"
            self.log.warn("the CDN host {host} {said}: {why}", host=host, said=said, why=health.said)
            self._changed([name for name, each in self.health.items() if each.alive])

    def status(self) -> dict[str, object]:
        """What the console shows, by host."""
        return {host: {"alive": health.alive, "said": health.said} for host, health in self.health.items()}
