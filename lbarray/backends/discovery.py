"""Back ends by DNS: addresses or service records (RFC 2782), asked for again when their time to live is over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from ipaddress import IPv6Address
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure

from lbarray.backends.pool import Pool

__all__ = ["Discoveries", "Discovery", "Found", "Place", "best_services", "member_name"]


@attrs.frozen(order=True)
class Place:
    """Where a back end is, and its part of the pool (1 to 1000)."""

    host: str
    port: int
    weight: int = 1


@attrs.frozen
class Found:
    """An answer: the places, and for how many seconds it holds."""

    places: frozenset[Place]
    ttl_s: float


def member_name(place: Place) -> str:
    """What a back end that was found is called: its address and port, in the letters that names have."""
    return f"{place.host.replace(':', '.').strip('.') or '0'}-{place.port}"


def addresses(records: Iterable[Any]) -> dict[str, float]:
    """Every address in DNS records, with its time to live."""
    found: dict[str, float] = {}
    for record in records:
        if record.type == dns.A:
            found[record.payload.dottedQuad()] = record.ttl
        elif record.type == dns.AAAA:
            found[str(IPv6Address(record.payload.address))] = record.ttl
    return found


def best_services(records: Iterable[Any]) -> list[tuple[str, int, int, float]]:
    """(target, port, weight, ttl) of the SRV records with the lowest priority; a target of ``.`` is none."""
    services = [record for record in records if record.type == dns.SRV and str(record.payload.target) not in ("", ".")]
    best = min((record.payload.priority for record in services), default=0)
    return [
        (
            str(record.payload.target),
            record.payload.port,
            min(1000, max(1, record.payload.weight)),
            record.ttl,
        )
        for record in services
        if record.payload.priority == best
    ]


class Discovery:
    """Keeps one pool's back ends as DNS says.

    An answer that does not come, or is empty, changes nothing: a name server that is down must not take the pool down.

    :param resolver: of :mod:`twisted.names`: ``lookupAddress``, ``lookupIPV6Address``, ``lookupService``.
    :param kind: ``address`` or ``srv``.
    :param port: of addresses. :param shortest_s: not asked more often; :param longest_s: not more seldom.
    :param made_of: its settings: another one of the same settings need not take its place.
    :ivar changed: ``changed({name: place})``: all of them, whenever they differ from before.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        resolver: Any,
        pool: str,
        name: str,
        kind: str,
        port: int,
        shortest_s: float,
        longest_s: float,
        made_of: object = None,
    ) -> None:
        self.made_of = made_of
        self.changed: Callable[[Mapping[str, Place]], None] = lambda places: None
        self._reactor = reactor
        self._resolver = resolver
        self._pool = pool
        self._name = name
        self._kind = kind
        self._port = port
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._call: IDelayedCall | None = None
        self._running = False
        self._failed = False
        self._places: frozenset[Place] = frozenset()

    def start(self) -> None:
        """Ask now, and again and again."""
        self._running = True
        self._ask()

    def stop(self) -> None:
        """Ask no more."""
        self._running = False
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _ask(self) -> None:
        asked = self._services() if self._kind == "srv" else self._addresses(self._name, self._port, 1)
        asked.addCallbacks(self._found, self._missed)

    def _again(self, seconds: float) -> None:
        if self._running:
            wait = min(self._longest_s, max(self._shortest_s, seconds))
            self._call = self._reactor.callLater(wait, self._ask)

    def _addresses(self, name: str, port: int, weight: int) -> Deferred[Found]:
        lookups = [self._resolver.lookupAddress(name), self._resolver.lookupIPV6Address(name)]
        both: Deferred[Any] = DeferredList(lookups, consumeErrors=True)

        def gathered(results: list[tuple[bool, Any]]) -> Found | Failure:
            records = [record for good, result in results if good for record in result[0]]
            found = addresses(records)
            if not found:
                failures = [result for good, result in results if not good]
                return failures[0] if failures else Failure(LookupError(f"{name} has no address"))
            ttl_s = min(found.values())
            return Found(frozenset(Place(host, port, weight) for host in found), ttl_s)

        return both.addCallback(gathered)

    def _services(self) -> Deferred[Found]:
        def targets(result: Any) -> Any:
            services = best_services(result[0])
            if not services:
                return Failure(LookupError(f"{self._name} has no service records"))
            ttl_s = min(ttl for _, _, _, ttl in services)
            lookups = [self._addresses(target, port, weight) for target, port, weight, _ in services]
            all_of_them: Deferred[Any] = DeferredList(lookups, consumeErrors=True)

            def gathered(results: list[tuple[bool, Any]]) -> Any:
                good = [found for fine, found in results if fine]
                if len(good) < len(results):
                    # Half an answer would take the other half of the pool away.
                    return next(failure for fine, failure in results if not fine)
                places = frozenset(place for found in good for place in found.places)
                return Found(places, min([ttl_s, *(found.ttl_s for found in good)]))

            return all_of_them.addCallback(gathered)

        asked: Deferred[Any] = self._resolver.lookupService(self._name)
        return asked.addCallback(targets)

    def _found(self, found: Found) -> None:
        self._failed = False
        if self._running and found.places != self._places:
            self._places = found.places
            self.changed({member_name(place): place for place in sorted(found.places)})
        self._again(found.ttl_s)

    def _missed(self, failure: Failure) -> None:
        if not self._failed:
            self._failed = True
            self.log.warn(
                "pool {pool}: {name} cannot be resolved, its back ends stay as they were: {why}",
                pool=self._pool,
                name=self._name,
                why=failure.getErrorMessage() or repr(failure.value),
            )
        self._again(self._shortest_s)


class Discoveries:
    """Keeps the members of several pools as their names say.

    :param add: ``add(pool, name, place)``; :param remove: ``remove(pool, name)``.
    :param weigh: ``weigh(pool, name, weight)``.
    """

    def __init__(
        self,
        *,
        pools: Mapping[str, Pool],
        add: Callable[[str, str, Place], object],
        remove: Callable[[str, str], object],
        weigh: Callable[[str, str, int], object],
    ) -> None:
        self._pools = pools
        self._add = add
        self._remove = remove
        self._weigh = weigh
        self.by_pool: dict[str, Discovery] = {}

    def follow(self, wanted: Mapping[str, Discovery], *, running: bool) -> None:
        """Ask for these from now on; who asks for the same as before goes on with it."""
        for name, old in list(self.by_pool.items()):
            if name not in wanted or wanted[name].made_of != old.made_of:
                old.stop()
                del self.by_pool[name]
                if name not in wanted:
                    self._members(name, {})
        for name, discovery in wanted.items():
            if name not in self.by_pool:
                self.by_pool[name] = discovery
                discovery.changed = partial(self._members, name)
                if running:
                    discovery.start()

    def start(self) -> None:
        """Ask."""
        for discovery in self.by_pool.values():
            discovery.start()

    def stop(self) -> None:
        """Ask no more."""
        for discovery in self.by_pool.values():
            discovery.stop()

    def _members(self, pool_name: str, places: Mapping[str, Place]) -> None:
        pool = self._pools.get(pool_name)
        if pool is None:
            return
        for name, member in list(pool.members.items()):
            if member.kept and name not in places:
                self._remove(pool_name, name)
        for name, place in places.items():
            known = pool.members.get(name)
            if known is None:
                self._add(pool_name, name, place)
            elif known.kept and known.weight != place.weight:
                self._weigh(pool_name, name, place.weight)
