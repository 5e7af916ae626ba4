"""Back ends as a service of the node: gives each request its back end, and watches them all."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.backends.pool import Member, Pool
from lbarray.backends.routes import RouteTable
from lbarray.errors import ArrayError, BadInput
from lbarray.http.events import OwnAnswer, RequestHead, ResponseHead
from lbarray.interfaces import IAssignment, IRequestScheduler
from lbarray.telemetry.counters import Counters
from lbarray.values import BackendAddress, BackendState, ClientAddress, Handling, Outcome, ServiceId

__all__ = ["Assignment", "BackendsService", "Watch"]

_FAILURES = frozenset([Outcome.CONNECT_FAILED, Outcome.BROKEN, Outcome.TIMED_OUT])
EXPIRE_S = 1.0


class NoRoute(BadInput):
    """No route holds for the request."""

    reason = "no_route"
    status = 404


class NobodyServes(BadInput):
    """The pool has no back end that may have the request."""

    reason = "no_backend"
    status = 503


class UnknownBackend(ArrayError):
    """There is no such pool or back end."""


@implementer(IAssignment)
class Assignment:
    """One request at one back end."""

    __slots__ = ("_clock", "_finished", "_member", "_pool", "_secure", "_tried", "backend")

    answer: OwnAnswer | None = None
    waiting = False
    target: bytes | None = None
    handling = Handling()
    mirrors: Sequence[object] = ()

    def __init__(self, pool: Pool, member: Member, tried: tuple[Member, ...], secure: bool | None, clock: Any) -> None:
        self.backend: BackendAddress = member.address
        self._pool = pool
        self._member = member
        self._tried = tried
        self._secure = secure
        self._clock = clock
        self._finished = False
        member.outstanding += 1
        member.requests += 1

    def wait(self, ready: Callable[[BadInput | None], None]) -> None:
        raise AssertionError("it does not wait")

    def responded(self, response: ResponseHead) -> None:
        persistence = self._pool.persistence
        if persistence is not None and self._secure is not None:
            response.fields.append(persistence.field(self._member.token, secure=self._secure))

    def idle_connection(self) -> object | None:
        return self._member.idle.take()

    def keep_connection(self, connection: object) -> None:
        if self._member.health.serves and not self._member.retired:
            self._member.idle.store(connection, self._clock.seconds())
        else:
            connection.close()  # type: ignore[attr-defined]  # the contract of IAssignment

    def forget_connection(self, connection: object) -> None:
        self._member.idle.forget(connection)

    def finished(self, outcome: Outcome) -> None:
        if self._finished:
            return
        self._finished = True
        member = self._member
        member.outstanding -= 1
        if outcome in _FAILURES:
            member.failures += 1
            # Traffic is a probe as well: who takes no connection need not be asked three more times.
            refused = outcome is Outcome.CONNECT_FAILED and member.health.state is BackendState.UP
            if refused and member.health.saw(Seen(False, "took no connection"), self._clock.seconds()):
                self._pool.refresh()
                member.idle.close_all()

    def another(self) -> Assignment | None:
        tried = (*self._tried, self._member)
        member = self._pool.choose(tried)
        if member is None:
            return None
        return Assignment(self._pool, member, tried, bool(self._secure), self._clock)


class Watch:
    """How a pool's members are probed. ``probe`` is an :class:`lbarray.interfaces.IHealthProbe`."""

    def __init__(self, *, probe: Any, interval_s: float) -> None:
        self.probe = probe
        self.interval_s = interval_s


@implementer(IRequestScheduler)
class BackendsService(Service):
    """Routes, pools, persistence, policies and health together.

    :param routes: the table of each service.
    :param watches: how each pool is probed; a pool without is taken to be well.
    :param chance: a number from 0 to 1; spreads the probes of many nodes.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        pools: Sequence[Pool],
        routes: Mapping[ServiceId, RouteTable],
        watches: Mapping[str, Watch],
        counters: Counters,
        chance: Any = random.random,
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self._reactor = reactor
        self._routes = dict(routes)
        self._watches = dict(watches)
        self._counters = counters
        self._chance = chance
        self._calls: dict[Member, IDelayedCall] = {}
        self._looking: dict[Member, Deferred[Any]] = {}
        self._expiry = LoopingCall(self._expire)
        self._expiry.clock = reactor

    # IRequestScheduler

    def assign(self, service: ServiceId, request: RequestHead, client: ClientAddress) -> Assignment:
        name = self._routes[service].find(request.host, request.target)
        if name is None or name not in self.pools:
            raise NoRoute(f"no route for {request.host!r}")
        pool = self.pools[name]
        persistence = pool.persistence
        if persistence is None:
            member = pool.choose(())
            if member is None:
                raise NobodyServes(f"no back end of pool {name} can serve")
            return Assignment(pool, member, (), None, self._reactor)
        bound = pool.bound_to(persistence.read(request))
        if bound is not None:
            return Assignment(pool, bound, (), None, self._reactor)
        member = pool.choose(())
        if member is None:
            raise NobodyServes(f"no back end of pool {name} can serve")
        return Assignment(pool, member, (), client.tls, self._reactor)

    # Watching

    def startService(self) -> None:
        super().startService()
        self._watch_all()  # at once, but not all in the same instant
        self._expiry.start(EXPIRE_S, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._expiry.running:
            self._expiry.stop()
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()
        for looking in list(self._looking.values()):
            looking.cancel()
        for pool in self.pools.values():
            for member in pool.members.values():
                member.idle.close_all()

    def _later(self, pool: Pool, member: Member, delay: float) -> None:
        self._calls[member] = self._reactor.callLater(delay, self._look, pool, member)

    def _look(self, pool: Pool, member: Member) -> None:
        del self._calls[member]
        watch = self._watches[pool.name]
        looking = self._looking[member] = watch.probe.probe(member.address)
        looking.addCallbacks(lambda seen: self._saw(pool, member, seen), self._unseen)
        looking.addBoth(lambda _: self._looked(pool, member))

    def _looked(self, pool: Pool, member: Member) -> None:
        self._looking.pop(member, None)
        watch = self._watches.get(pool.name)
        # The configuration may have changed meanwhile: is it still a member, and still watched?
        if self.running and watch is not None and pool.has(member):
            # A tenth to either side: the nodes of an array do not march in step.
            self._later(pool, member, watch.interval_s * (0.9 + 0.2 * self._chance()))

    def _unseen(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self.log.failure("a health probe broke", failure)

    def _saw(self, pool: Pool, member: Member, seen: Seen) -> None:
        self._counters.add("probes", "passed" if seen.passed else "failed")
        before = member.health.state
        if not member.health.saw(seen, self._reactor.seconds()):
            return
        pool.refresh()
        if not member.health.serves:
            member.idle.close_all()
            self.log.warn("back end {backend} is down: {said}", backend=str(member.address), said=seen.said)
        elif before is BackendState.DOWN:
            self.log.info("back end {backend} is up: {said}", backend=str(member.address), said=seen.said)

    def reconfigure(
        self, *, pools: Sequence[Pool], routes: Mapping[ServiceId, RouteTable], watches: Mapping[str, Watch]
    ) -> None:
        """Serve like this from the next request on.

        Back ends that stay keep their health, their connections and what was done to them by hand; requests in hand
        end where they are. Services that are gone keep their routes, for their clients that are still here.
        """
        retired: list[Member] = []
        for pool in pools:
            live = self.pools.get(pool.name)
            if live is None:
                self.pools[pool.name] = pool
            else:
                retired += live.reconfigure(pool)
        names = {pool.name for pool in pools}
        for name in [name for name in self.pools if name not in names]:
            retired += self.pools.pop(name).members.values()
        self._routes.update(routes)
        self._watches = dict(watches)
        for member in retired:
            self._unwatch(member)
            member.retired = True
            member.idle.close_all()
        if self.running:
            self._watch_all()

    def _unwatch(self, member: Member) -> None:
        call = self._calls.pop(member, None)
        if call is not None:
            call.cancel()
        looking = self._looking.get(member)
        if looking is not None:
            looking.cancel()

    def _watch_all(self) -> None:
        """Watch who is not watched yet; who need not be watched any more is taken to be well."""
        for pool in self.pools.values():
            for place, member in enumerate(pool.members.values()):
                if pool.name not in self._watches:
                    self._unwatch(member)
                    member.health.unwatched(self._reactor.seconds())
                elif member not in self._calls and member not in self._looking:
                    self._later(pool, member, 0.01 * place)
            pool.refresh()

    def _expire(self) -> None:
        now = self._reactor.seconds()
        for pool in self.pools.values():
            for member in pool.members.values():
                member.idle.expire(now)

    # For the operator

    def member(self, pool: str, name: str) -> Member:
        """:raises UnknownBackend: the message names those there are."""
        try:
            return self.pools[pool].members[name]
        except KeyError:
            known = ", ".join(f"{pool}/{name}" for pool in self.pools for name in self.pools[pool].members)
            raise UnknownBackend(f"no back end {pool}/{name}; there are: {known}") from None

    def drain(self, pool: str, name: str, draining: bool = True) -> None:
        """Send no new clients to a back end; those bound to it by their cookie still come.

        :raises UnknownBackend: there is none of that name.
        """
        self.member(pool, name).draining = draining
        self.pools[pool].refresh()
        self.log.info("back end {pool}/{name}: draining {draining}", pool=pool, name=name, draining=draining)

    def set_weight(self, pool: str, name: str, weight: int) -> None:
        """Change a back end's share until the next start.

        :raises UnknownBackend: there is none of that name.
        :raises ValueError: a weight below 1.
        """
        if weight < 1:
            raise ValueError(f"weight {weight}; a weight is at least 1 (drain a back end that shall get nothing)")
        self.member(pool, name).weight = weight

    def status(self) -> dict[str, object]:
        """What the console shows, by pool and back end."""
        now = self._reactor.seconds()
        return {
            pool.name: {
                member.address.name: {
                    "address": f"{member.address.host}:{member.address.port}",
                    "state": member.state.value,
                    "since_s": round(now - member.health.since, 1),
                    "check": member.health.last.said,
                    "weight": member.weight,
                    "outstanding": member.outstanding,
                    "requests": member.requests,
                    "failures": member.failures,
                    "idle": len(member.idle),
                }
                for member in pool.members.values()
            }
            for pool in self.pools.values()
        }
