"""Back ends as a service of the node: gives each request its back end, and watches them all."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.backends.actions import Route
from lbarray.backends.assignment import Assignment, OwnAssignment, PoolService
from lbarray.backends.discovery import Discoveries, Discovery, Place
from lbarray.backends.ejection import CircuitState
from lbarray.backends.health import Seen
from lbarray.backends.pool import Member, Pool
from lbarray.backends.refusals import NobodyServes, NoRoom, NoRoute, QueueDisplaced, TooLarge, UnknownBackend
from lbarray.backends.routes import RouteTable
from lbarray.backends.sharing import Sharing
from lbarray.backends.status import member_status, pool_status
from lbarray.backends.watching import Watch, Watcher
from lbarray.errors import BadInput
from lbarray.http.events import RequestHead
from lbarray.interfaces import IRequestScheduler
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.durations import backend_series
from lbarray.values import BackendState, ClientAddress, Handling, ServiceId

__all__ = ["BackendsService"]

TICK_S = 0.5


@implementer(IRequestScheduler)
class BackendsService(Service):
    """Routes, pools, persistence, policies and health together.

    :param routes: the table of each service; it leads to :class:`lbarray.backends.actions.Route`.
    :param watches: how each pool is probed; a pool without is taken to be well.
    :param discoveries: what finds the back ends of pools by DNS.
    :param make_member: ``make_member(pool, name, host, port, weight)`` for back ends that are added while running.
    :param chance: random numbers; they spread the probes of many nodes.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        pools: Sequence[Pool],
        routes: Mapping[ServiceId, RouteTable[Route]],
        watches: Mapping[str, Watch],
        counters: Counters,
        make_member: Callable[[str, str, str, int, int], Member] | None = None,
        discoveries: Mapping[str, Discovery] | None = None,
        chance: Any = random,
    ) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self._reactor = reactor
        self._routes = dict(routes)
        self._counters = counters
        self._make_member = make_member
        self._chance = chance
        self._discoveries = Discoveries(pools=self.pools, add=self._found, remove=self.remove, weigh=self.set_weight)
        self._discoveries.follow(discoveries or {}, running=False)
        self._everywhere = False
        self._since = float("inf")
        self._listeners: list[Callable[[dict[str, Any]], None]] = []
        self._service = PoolService(
            seconds=reactor.seconds,
            later=reactor.callLater,
            changed=self._changed,
            counted=counters.add,
            series=lambda member: backend_series(counters, member.address.pool, member.address.name),
        )
        self.watcher = Watcher(reactor=reactor, pools=self.pools, watches=watches, saw=self.saw, chance=chance.random)
        for pool in pools:
            self._take(pool)
        self._sharing = Sharing(reactor=reactor, pools=self.pools, changed=self._heard_of_node, tell=self._say)
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor

    def _take(self, pool: Pool) -> None:
        pool.handed = _handed

    def _joins(self, pool: Pool, member: Member) -> None:
        """A new back end begins as slowly as one that has recovered; not so while all are new, after our own start."""
        now = self._reactor.seconds()
        if now - self._since >= pool.limits.slow_start_s:
            pool.recovers(member, now)
            pool.refresh()

    def reconfigure(
        self,
        *,
        pools: Sequence[Pool],
        routes: Mapping[ServiceId, RouteTable[Route]],
        watches: Mapping[str, Watch],
        make_member: Callable[[str, str, str, int, int], Member] | None = None,
        discoveries: Mapping[str, Discovery] | None = None,
    ) -> None:
        """Serve like this from the next request on.

        Back ends that stay keep their health, their connections and what was done to them by hand; requests in hand
        end where they are. Services that are gone keep their routes, for their clients that are still here.
        """
        retired: list[Member] = []
        for pool in pools:
            live = self.pools.get(pool.name)
            if live is None:
                self._take(pool)
                self.pools[pool.name] = pool
            else:
                before = set(live.members.values())
                retired += live.reconfigure(pool)
                if before:
                    for member in live.members.values():
                        if member not in before:
                            self._joins(live, member)
        names = {pool.name for pool in pools}
        for name in [name for name in self.pools if name not in names]:
            gone = self.pools.pop(name)
            retired += gone.members.values()
            gone.members = {}
        self._routes.update(routes)
        self._make_member = make_member or self._make_member
        for member in retired:
            member.idle.close_all()
        self.watcher.reconfigure(watches, retired)
        self._sharing.attach()
        self._discoveries.follow(discoveries or {}, running=bool(self.running))
        for change in self.snapshot():
            self._tell(change)

    # IRequestScheduler

    def assign(self, service: ServiceId, request: RequestHead, client: ClientAddress) -> Any:
        route = self._routes[service].find(request, client)
        if route is None:
            raise NoRoute(f"no route for {request.host!r}")
        if not route.plain:
            return self._by_route(route, request, client)
        pool = self.pools.get(route.pool)  # type: ignore[arg-type]  # a plain route has one
        if pool is None:  # of a service that is gone, as is its pool
            raise NoRoute(f"no route for {request.host!r}")
        key = pool.key_of(request, client) if pool.key_of is not None else b""
        persistence = pool.persistence
        if persistence is None:
            found, mark, member = None, b"", pool.choose((), key)
        else:
            found, mark = persistence.find(request, client)
            member = pool.choose((), key) if found is None else found if pool.has_room(found) else None
        if member is None:
            waiting = Assignment(self._service, pool, None, route.handling, key, found, mark, client.tls)
            return self._queued(pool, found, waiting)
        pool.begin(member)
        return Assignment(self._service, pool, member, route.handling, key, found, mark, client.tls)

    def _by_route(self, route: Route, request: RequestHead, client: ClientAddress) -> Any:
        """What :meth:`assign` does for a route that does more than lead to a pool."""
        if route.answer is not None:
            return OwnAssignment(route.answer, route.handling)
        if route.redirect is not None:
            return OwnAssignment(route.redirect.answer(request, client), route.handling)
        most = route.handling.max_body
        if most is not None and (length := request.get(b"content-length")) is not None and int(length) > most:
            raise _of(route.handling, TooLarge(f"content of {int(length)} octets, the route allows {most}"))
        pool = self._pool_of(route, request, client)
        key = pool.key_of(request, client) if pool.key_of is not None else b""
        found, mark = None, b""
        if pool.persistence is not None:
            found, mark = pool.persistence.find(request, client)
        target = route.rewrite.target(request.target) if route.rewrite is not None else None
        if route.request_edits is not None:
            route.request_edits.request(request, client)
        member = pool.choose((), key) if found is None else found if pool.has_room(found) else None
        if member is not None:
            pool.begin(member)
        assignment = Assignment(
            self._service,
            pool,
            member,
            found=found,
            mark=mark,
            secure=client.tls,
            key=key,
            handling=route.handling,
            priority=route.priority,
            target=target,
            edit=route.response_edits.response if route.response_edits is not None else None,
        )
        if route.mirror is not None and self._chance.random() * 100.0 < route.mirror.percent:
            shadow = self.pools.get(route.mirror.pool)
            copied = shadow.choose((), key) if shadow is not None else None
            if shadow is not None and copied is not None:
                shadow.begin(copied)
                assignment.mirrors = (Assignment(self._service, shadow, copied, target=target),)
        return assignment if member is not None else self._queued(pool, found, assignment)

    def _pool_of(self, route: Route, request: RequestHead, client: ClientAddress) -> Pool:
        first: Pool | None = None
        if route.split is not None:
            # Who has a session at one of them stays there; only the others are split.
            for each in route.split.names:
                at = self.pools.get(each)
                if at is not None and at.persistence is not None and at.persistence.knows(request, client):
                    return at
        for name in (route.pool,) if route.split is None else route.split.choose(client):
            pool = self.pools.get(name or "")
            if pool is not None and pool.fit:
                return pool
            first = first or pool
        if first is None:
            raise NoRoute("a route whose pool is gone")
        return first

    def _queued(self, pool: Pool, found: Member | None, waiting: Assignment) -> Assignment:
        if not pool.fit and found is None:
            raise _of(waiting.handling, NobodyServes(f"no back end of pool {pool.name} can serve"))
        if not pool.limits.queue:
            full = f"every back end of pool {pool.name} has as many requests as it may have"
            raise _of(waiting.handling, NoRoom(full))
        try:
            waiting.queue()
        except QueueDisplaced as error:
            raise _of(waiting.handling, error) from None
        self._counters.add("queued", pool.name)
        return waiting

    # Life

    def share(self, channel: Any) -> None:
        """Tell the other nodes of the array what is seen and learnt here, over an
        :class:`lbarray.interfaces.IArrayChannel`. Before the start."""
        self.watcher.share(channel)
        self._sharing.channel = channel

    def startService(self) -> None:
        super().startService()
        self._since = self._reactor.seconds()
        self.watcher.start()
        self._discoveries.start()
        self._sharing.start()
        self._ticks.start(TICK_S, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._ticks.running:
            self._ticks.stop()
        self.watcher.stop()
        self._discoveries.stop()
        self._sharing.stop()
        for pool in self.pools.values():
            for member in pool.members.values():
                member.idle.close_all()

    def _tick(self) -> None:
        now = self._reactor.seconds()
        for pool in self.pools.values():
            for member in pool.tick(now):
                self._circuit_changed(pool, member, now)
            for member in pool.members.values():
                member.idle.expire(now)

    # Health

    def saw(self, pool: Pool, member: Member, seen: Seen) -> None:
        """A probe of ours, or of another node, has a result."""
        self._counters.add("probes", "passed" if seen.passed else "failed")
        before = member.health.state
        now = self._reactor.seconds()
        if not member.health.saw(seen, now):
            return
        if member.health.serves and before is BackendState.DOWN:
            pool.recovers(member, now)
            if pool.ejector is not None and pool.ejector.recovered(member, now):
                member.set_limit()
        self._health_changed(pool, member)

    def _changed(self, pool: Pool, member: Member, health: bool) -> None:
        """A request has changed the health of ``member``, or else its circuit."""
        if health:
            self._health_changed(pool, member)
        else:
            pool.refresh()
            self._circuit_changed(pool, member, self._reactor.seconds())

    def _health_changed(self, pool: Pool, member: Member) -> None:
        pool.refresh()
        health = member.health
        if not health.serves:
            member.idle.close_all()
            self.log.warn("back end {backend} is down: {said}", backend=str(member.address), said=health.last.said)
        else:
            self.log.info("back end {backend} is up: {said}", backend=str(member.address), said=health.last.said)
        self._tell({"what": "health", **self._of(pool, member)})

    def _circuit_changed(self, pool: Pool, member: Member, now: float) -> None:
        circuit = member.circuit
        if circuit.state is CircuitState.OPEN:
            self._counters.add("ejections", pool.name)
            member.idle.close_all()
            self.log.warn(
                "back end {backend} is ejected for {wait_s} s: {why}",
                backend=str(member.address),
                wait_s=round(circuit.until - now, 1),
                why=circuit.why,
            )
        elif circuit.state is CircuitState.CLOSED:
            pool.recovers(member, now)
            pool.refresh()
            self.log.info("back end {backend} works again", backend=str(member.address))

    # What worker processes are told, and tell again

    def subscribe(self, tell: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call ``tell`` with each change of health, draining, weight or members, and with what is learnt of sessions:
        plain values, for :meth:`hear` of another process. Returns a callable that ends it."""
        self._listeners.append(tell)
        return lambda: self._listeners.remove(tell)

    def snapshot(self) -> list[dict[str, Any]]:
        """All that a process needs to hear that has just begun."""
        return [
            {"what": what, **self._of(pool, member)}
            for pool in self.pools.values()
            for member in pool.members.values()
            for what in ("member", "health", "drain")
        ] + list(self._sharing.snapshot())

    @contextlib.contextmanager
    def telling(self, everywhere: bool) -> Iterator[None]:
        """Changes within go to the other nodes of the array too, if so wanted."""
        self._everywhere = everywhere
        try:
            yield
        finally:
            self._everywhere = False

    def hear(self, change: Mapping[str, Any]) -> None:
        """Do what ``change`` of another process or node says; unknown back ends and words are ignored."""
        pool = self.pools.get(change["pool"])
        if pool is None:
            return
        if change["what"] in ("sessions", "groups"):
            self._sharing.hear(change)
            return
        what, name = change["what"], change["backend"]
        member = pool.members.get(name)
        now = self._reactor.seconds()
        if what == "remove":
            if member is not None:
                pool.remove(name)
                self.watcher.removed(member)
        elif what == "member":
            if member is None or (member.address.host, member.address.port) != (change["host"], change["port"]):
                if self._make_member is not None:
                    added = self._make_member(pool.name, name, change["host"], change["port"], change["weight"])
                    added.kept = change["kept"]
                    pool.add(added)
                    self._joins(pool, added)
                    if member is not None:
                        self.watcher.removed(member)
                    self.watcher.added(pool, added)
            elif member.weight != change["weight"]:
                pool.set_weight(member, change["weight"])
        elif member is None:
            return
        elif what == "drain":
            member.draining = change["draining"]
            pool.refresh()
        elif what == "health":
            was_down = not member.health.serves
            state = BackendState(change["health"])
            if member.health.told(state, Seen(change["passed"], change["said"]), now):
                if was_down and member.health.serves:
                    pool.recovers(member, now)
                    if pool.ejector is not None and pool.ejector.recovered(member, now):
                        member.set_limit()
                pool.refresh()
                if not member.health.serves:
                    member.idle.close_all()

    @staticmethod
    def _of(pool: Pool, member: Member) -> dict[str, Any]:
        return {
            "pool": pool.name,
            "backend": member.address.name,
            "host": member.address.host,
            "port": member.address.port,
            "weight": member.weight,
            "kept": member.kept,
            "draining": member.draining,
            "health": member.health.state.value,
            "passed": member.health.last.passed,
            "said": member.health.last.said,
        }

    def _heard_of_node(self, change: Mapping[str, Any]) -> None:
        """Another node's operator has changed something."""
        self.log.info("told by another node: {change}", change=dict(change))
        self.hear(change)
        for listener in list(self._listeners):
            listener(dict(change))

    def _tell(self, change: dict[str, Any]) -> None:
        if self._everywhere:
            self._sharing.tell_change(change)
        self._say(change)

    def _say(self, change: dict[str, Any]) -> None:
        for listener in list(self._listeners):
            listener(change)

    # For the operator

    def member(self, pool: str, name: str) -> Member:
        """:raises UnknownBackend: the message names those there are."""
        try:
            return self.pools[pool].members[name]
        except KeyError:
            known = ", ".join(f"{pool}/{name}" for pool in self.pools for name in self.pools[pool].members)
            raise UnknownBackend(f"no back end {pool}/{name}; there are: {known}") from None

    def drain(self, pool: str, name: str, draining: bool = True) -> None:
        """Send no new clients to a back end; those bound to it still come.

        :raises UnknownBackend: there is none of that name.
        """
        member = self.member(pool, name)
        member.draining = draining
        self.pools[pool].refresh()
        self.log.info("back end {pool}/{name}: draining {draining}", pool=pool, name=name, draining=draining)
        self._tell({"what": "drain", **self._of(self.pools[pool], member)})

    def set_weight(self, pool: str, name: str, weight: int) -> None:
        """Change a back end's share until the next start or reload.

        :raises UnknownBackend: there is none of that name.
        :raises ValueError: a weight below 1.
        """
        if weight < 1:
            raise ValueError(f"weight {weight}; a weight is at least 1 (drain a back end that shall get nothing)")
        member = self.member(pool, name)
        self.pools[pool].set_weight(member, weight)
        self._tell({"what": "member", **self._of(self.pools[pool], member)})

    def add(self, pool: str, name: str, host: str, port: int, weight: int = 1, *, kept: bool = False) -> None:
        """A new back end, until the next start or reload; a ``kept`` one (of DNS) stays at a reload.

        :raises UnknownBackend: there is no such pool.
        :raises ValueError: the pool has one of that name, or a weight below 1.
        """
        if pool not in self.pools or self._make_member is None:
            raise UnknownBackend(f"no pool {pool}; there are: {', '.join(self.pools)}")
        if name in self.pools[pool].members:
            raise ValueError(f"pool {pool} has a back end {name}; remove it first")
        if weight < 1:
            raise ValueError(f"weight {weight}; a weight is at least 1")
        member = self._make_member(pool, name, host, port, weight)
        member.kept = kept
        self.pools[pool].add(member)
        self._joins(self.pools[pool], member)
        self.watcher.added(self.pools[pool], member)
        self.log.info("back end {backend} is added", backend=str(member.address))
        self._tell({"what": "member", **self._of(self.pools[pool], member)})

    def _found(self, pool: str, name: str, place: Place) -> None:
        self.add(pool, name, place.host, place.port, place.weight, kept=True)

    def remove(self, pool: str, name: str) -> int:
        """Take a back end out; what it has in hand goes on to its end. How many requests that are.

        :raises UnknownBackend: there is none of that name.
        """
        member = self.member(pool, name)
        change = {"what": "remove", **self._of(self.pools[pool], member)}
        self.pools[pool].remove(name)
        self.watcher.removed(member)
        self.log.info("back end {backend} is removed", backend=str(member.address))
        self._tell(change)
        return member.outstanding

    def status(self) -> dict[str, object]:
        """What the console shows, by pool and back end."""
        now = self._reactor.seconds()
        return {
            pool.name: {name: member_status(member, now) for name, member in pool.members.items()}
            for pool in self.pools.values()
        }

    def load_status(self) -> dict[str, object]:
        """What the console shows of each pool as a whole."""
        watcher = self.watcher
        return {
            name: {**pool_status(pool), "looks": watcher.looks.get(name, 0), "seen": watcher.seen.get(name, 0)}
            for name, pool in self.pools.items()
        }


def _of(handling: Handling, error: BadInput) -> BadInput:
    """The refusal, counted for its route."""
    error.route = handling.route
    return error


def _handed(waiting: Assignment, member: Member) -> None:
    waiting.handed(member)
