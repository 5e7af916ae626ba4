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
        if self._member.health.serves:
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
        if name is None:
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
        for pool in self.pools.values():
            watch = self._watches.get(pool.name)
            if watch is not None:
                for place, member in enumerate(pool.members.values()):
                    # At once, but not all in the same instant.
                    self._later(pool, member, watch, 0.01 * place)
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

    def _later(self, pool: Pool, member: Member, watch: Watch, delay: float) -> None:
        self._calls[member] = self._reactor.callLater(delay, self._look, pool, member, watch)

    def _look(self, pool: Pool, member: Member, watch: Watch) -> None:
        looking = self._looking[member] = watch.probe.probe(member.address)
        looking.addCallbacks(lambda seen: self._saw(pool, member, seen), self._unseen)
        looking.addBoth(lambda _: self._looked(pool, member, watch))

    def _looked(self, pool: Pool, member: Member, watch: Watch) -> None:
        self._looking.pop(member, None)
        if self.running:
            # A tenth to either side: the nodes of an array do not march in step.
            self._later(pool, member, watch, watch.interval_s * (0.9 + 0.2 * self._chance()))

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
