"""Pools and their members: who may have requests, who has how many, who waits for one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from lbarray.backends.concurrency import AdaptiveLimit
from lbarray.backends.connections import IdleConnections
from lbarray.backends.ejection import Circuit, CircuitState, Ejector
from lbarray.backends.health import Health, ramp
from lbarray.backends.keys import KeyReader
from lbarray.backends.queue import RequestQueue, Waiter
from lbarray.telemetry.durations import Series
from lbarray.values import BackendAddress, BackendState, Outcome

__all__ = ["NO_LIMIT", "Member", "Pool", "PoolLimits"]

NO_LIMIT = sys.maxsize
#: Tokens of the retry budget that a quiet pool has: a single broken connection is always repeated.
RETRY_RESERVE = 20.0

_ANSWERED = Outcome.ANSWERED
_FAILURES = frozenset([Outcome.CONNECT_FAILED, Outcome.BROKEN, Outcome.TIMED_OUT])
_JUDGED = frozenset([*_FAILURES, Outcome.ANSWERED, Outcome.SERVER_ERROR])


class PoolLimits:
    """What a pool may take on, and how it comes back.

    :param max_requests: of all members together; :param max_connections: likewise, idle ones included.
    :param queue: so many wait; :param queue_timeout_s: for so long.
    :param retries: other back ends that one request may be tried at.
    :param retry_share: of the pool's requests may be repeats, 0 to 1; more than that is a storm.
    :param slow_start_s: until a recovered member has its whole share.
    :param adaptive: makes the limit of each member, ``None``: it has only its own ``max_requests``.
    """

    __slots__ = (
        "adaptive",
        "max_connections",
        "max_requests",
        "queue",
        "queue_timeout_s",
        "retries",
        "retry_share",
        "slow_start_s",
    )

    def __init__(
        self,
        *,
        max_requests: int = 0,
        max_connections: int = 0,
        queue: int = 0,
        queue_timeout_s: float = 5.0,
        retries: int = 2,
        retry_share: float = 0.2,
        slow_start_s: float = 0.0,
        adaptive: Callable[[], AdaptiveLimit] | None = None,
    ) -> None:
        self.max_connections = max_connections or NO_LIMIT
        # With HTTP/1.1 each request in hand has a connection of its own.
        self.max_requests = min(max_requests or NO_LIMIT, self.max_connections)
        self.queue = queue
        self.queue_timeout_s = queue_timeout_s
        self.retries = retries
        self.retry_share = retry_share
        self.slow_start_s = slow_start_s
        self.adaptive = adaptive


class Member:
    """One back end of a pool, as it is now.

    :ivar weight: its share of the pool; :ivar share: the same as it counts now, while it recovers.
    :ivar outstanding: requests in hand; :ivar limit: so many it may have.
    :ivar draining: gets no new clients; those that are bound to it still come.
    :ivar backup: gets requests only while no other can.
    :ivar series: what counts its requests' durations and ends, once it has had one.
    :ivar kept: not of the configuration (found by DNS): a change of that does not take it out.
    """

    __slots__ = (
        "_set_draining",
        "adaptive",
        "address",
        "backup",
        "circuit",
        "draining",
        "failures",
        "health",
        "idle",
        "kept",
        "limit",
        "max_requests",
        "outstanding",
        "recovering_since",
        "requests",
        "series",
        "share",
        "weight",
    )

    def __init__(
        self,
        *,
        address: BackendAddress,
        weight: int,
        health: Health,
        idle: IdleConnections,
        max_requests: int = 0,
        backup: bool = False,
        draining: bool = False,
    ) -> None:
        self.address = address
        self.weight = weight
        self.share = float(weight)
        self.health = health
        self.idle = idle
        self.max_requests = max_requests or NO_LIMIT
        self.limit = self.max_requests
        self.backup = backup
        self.circuit = Circuit()
        self.adaptive: AdaptiveLimit | None = None
        self.recovering_since: float | None = None
        self.outstanding = 0
        self.requests = 0
        self.failures = 0
        self.draining = draining
        self.kept = False
        self.series: Series | None = None
        self._set_draining = draining

    def __repr__(self) -> str:
        return f"<Member {self.address}>"

    @property
    def serves(self) -> bool:
        """May it have requests of its own clients?"""
        return self.circuit.state is not CircuitState.OPEN and self.health.serves

    @property
    def state(self) -> BackendState:
        """What the operator sees."""
        if self.health.serves:
            if self.circuit.state is CircuitState.OPEN:
                return BackendState.EJECTED
            if self.draining:
                return BackendState.DRAINING
        return self.health.state

    def reconfigure(self, new: Member) -> None:
        """Take the settings of a member that is to be what this one is, and keep what has been seen and counted.

        Draining by hand stays, as long as the configuration does not say something new of it.
        """
        self.share *= new.weight / self.weight
        self.weight = new.weight
        self.backup = new.backup
        self.max_requests = new.max_requests
        if new._set_draining != self._set_draining:
            self.draining = self._set_draining = new._set_draining
        self.health.rise, self.health.fall = new.health.rise, new.health.fall
        self.idle.reconfigure(new.idle)

    def set_limit(self) -> None:
        """The smallest of what is configured, what was found out, and what a trial allows."""
        limit = self.max_requests
        if self.adaptive is not None:
            limit = min(limit, int(self.adaptive.limit))
        self.limit = min(limit, 1) if self.circuit.state is CircuitState.HALF_OPEN else limit


class Pool:
    """Members that serve the same content.

    :param policy: an :class:`lbarray.interfaces.IBalancePolicy`; :param persistence: an
        :class:`lbarray.interfaces.IPersistence` or none.
    :param handed: ``handed(waiter, member)``: a queued request has its member; it is counted already.
    :param key_of: reads the hash key of a request, where the policy wants one.
    :param made_of: settings of policy and persistence, in this order: what is equal is kept by :meth:`reconfigure`.
    :ivar fit: who may have new requests; :ivar outstanding: requests in hand, of all members.
    """

    def __init__(
        self,
        *,
        name: str,
        members: Sequence[Member],
        policy: Any,
        persistence: Any = None,
        limits: PoolLimits | None = None,
        ejector: Ejector | None = None,
        handed: Callable[[Any, Member], None] = lambda waiter, member: None,
        made_of: tuple[object, object] = (None, None),
        key_of: KeyReader | None = None,
    ) -> None:
        self.name = name
        self.members = {member.address.name: member for member in members}
        self.policy = policy
        self.persistence = persistence
        self.limits = limits or PoolLimits()
        self.ejector = ejector
        self.handed = handed
        self.made_of = made_of
        self.key_of = key_of
        self.queue = RequestQueue(self.limits.queue)
        self.outstanding = 0
        self.requests = 0
        self.retries = 0
        self.fit: list[Member] = []
        self._retry_tokens = RETRY_RESERVE
        self.timed = False
        self._follow()
        for member in members:
            self._prepare(member)
        self.refresh()

    def _follow(self) -> None:
        """What is measured depends on who wants to know."""
        self._follows = self.policy.follows
        #: The time until a response's head is wanted.
        self.timed = self._follows or self.limits.adaptive is not None
        self.timed = self.timed or (self.ejector is not None and self.ejector.rules.latency_factor > 0)

    def _prepare(self, member: Member) -> None:
        if self.limits.adaptive is None:
            member.adaptive = None
        elif member.adaptive is None:
            member.adaptive = self.limits.adaptive()
        member.set_limit()

    # Who may have requests

    def refresh(self) -> None:
        """Health, draining, weights or members changed: find out anew who may have what."""
        members = list(self.members.values())
        able = [member for member in members if member.serves and not member.draining]
        fit = [member for member in able if not member.backup] or able
        if not fit:
            # Better one that was ejected for its answers than nobody, as long as nothing says that it is down.
            fit = [member for member in members if member.health.serves and not member.draining]
        self.fit = fit
        self.policy.update(members, fit)
        if self.persistence is not None:
            self.persistence.update(members, [member for member in members if member.serves])
        if self.queue:
            for bound in self.queue.bounds():
                if not bound.serves or bound.address.name not in self.members:
                    self.queue.unbind(bound)
            self.pump()

    def reconfigure(self, new: Pool) -> list[Member]:
        """Become what ``new`` says, and keep the members that are in both; those that are not are returned."""
        old = self.members
        self.members = {}
        for name, member in new.members.items():
            same = old.get(name)
            if same is not None and same.address == member.address:
                same.reconfigure(member)
                self.members[name] = same
            else:
                self.members[name] = member
        for name, member in old.items():
            if member.kept and name not in self.members:
                self.members[name] = member
        if self.made_of[0] != new.made_of[0] or type(self.policy) is not type(new.policy):
            self.policy = new.policy
        if self.made_of[1] != new.made_of[1]:
            self.persistence = new.persistence
        self.made_of = new.made_of
        self.key_of = new.key_of
        self.limits, self.ejector = new.limits, new.ejector
        self.queue.length = new.limits.queue
        self._follow()
        for member in self.members.values():
            self._prepare(member)
        self.refresh()
        return [member for member in old.values() if not self.has(member)]

    def has(self, member: Member) -> bool:
        """It belongs here, now."""
        return self.members.get(member.address.name) is member

    def add(self, *members: Member) -> None:
        """New members; those of the same names are replaced."""
        for member in members:
            self._prepare(member)
            self.members[member.address.name] = member
        self.refresh()

    def remove(self, name: str) -> Member:
        """Take a member out; what it has in hand goes on to its end.

        :raises KeyError: there is none of that name.
        """
        member = self.members.pop(name)
        self.refresh()
        member.idle.close_all()
        return member

    def tick(self, now: float) -> list[Member]:
        """Time has passed (about once a second at least): the members whose circuit has changed."""
        changed: list[Member] = []
        stale = False
        if self.ejector is not None:
            changed = self.ejector.tick(self.members.values(), now)
            for member in changed:
                member.set_limit()
        for member in self.members.values():
            if member.recovering_since is not None:
                part = ramp(now - member.recovering_since, self.limits.slow_start_s)
                member.share = member.weight * part
                stale = True
                if part >= 1.0:
                    member.recovering_since = None
        if self.persistence is not None:
            self.persistence.tick(now)
        if changed or stale:
            self.refresh()
        return changed

    def recovers(self, member: Member, now: float) -> None:
        """It is back: its share grows from small."""
        if self.limits.slow_start_s > 0:
            member.recovering_since = now
            member.share = member.weight * ramp(0.0, self.limits.slow_start_s)

    def set_weight(self, member: Member, weight: int) -> None:
        """Change its part of the pool."""
        member.share *= weight / member.weight
        member.weight = weight
        self.refresh()

    # Who gets this one

    def choose(self, avoid: Collection[Member] = (), key: bytes = b"") -> Member | None:
        """A member with room for a new request that is not in ``avoid``; ``None`` when there is none now."""
        if self.outstanding >= self.limits.max_requests:
            return None
        member: Member | None = self.policy.choose(key, avoid)
        if member is not None and member.outstanding >= member.limit:
            full = [each for each in self.fit if each.outstanding >= each.limit]
            member = self.policy.choose(key, {*avoid, *full})
        return member

    def has_room(self, member: Member) -> bool:
        """For one more request of a client that is bound to it."""
        return member.outstanding < member.limit and self.outstanding < self.limits.max_requests

    def may_retry(self, tried: int, *, unsent: bool = False) -> bool:
        """Whether a request that was tried at so many members may be tried at another.

        Takes from the budget, unless the request was ``unsent``: then nobody has had work with it yet.
        """
        if tried > self.limits.retries:
            return False
        if not unsent:
            if self._retry_tokens < 0.999:
                return False
            self._retry_tokens -= 1.0
        self.retries += 1
        return True

    def begin(self, member: Member) -> None:
        """It has one more request in hand."""
        member.outstanding += 1
        member.requests += 1
        self.outstanding += 1
        self.requests += 1
        if self._retry_tokens < RETRY_RESERVE:
            self._retry_tokens += self.limits.retry_share
        if self._follows:
            self.policy.began(member)

    def end(self, member: Member, outcome: Outcome, latency_s: float | None, now: float) -> bool:
        """That one is over, ``now``; true when the member's circuit has changed (the caller refreshes)."""
        member.outstanding -= 1
        self.outstanding -= 1
        if self._follows:
            self.policy.ended(member, latency_s)
        answered = outcome is _ANSWERED
        changed = False
        if member.adaptive is not None:
            if outcome in _FAILURES:
                member.adaptive.failed()
            elif latency_s is not None:
                member.adaptive.answered(latency_s, member.outstanding + 1)
            member.set_limit()
        if not answered and outcome in _FAILURES:
            member.failures += 1
        if self.ejector is not None and (answered or outcome in _JUDGED):
            changed = self.ejector.ended(self.members.values(), member, not answered, latency_s, now)
            if changed:
                member.set_limit()
        if self.queue.count:
            self.pump(member)
        return changed

    # Connections

    def connection(self, member: Member) -> Any | None:
        """An idle one of ``member`` for a request that it has in hand; without one a new one will be made, and where
        the pool may have no more, idle ones of others are closed for it, the oldest of who has most."""
        found = member.idle.take()
        if found is None and self.limits.max_connections != NO_LIMIT:
            while self.outstanding + self.idle > self.limits.max_connections:
                most = max(self.members.values(), key=lambda each: len(each.idle))
                if not most.idle.close_oldest():
                    break
        return found

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return sum(len(member.idle) for member in self.members.values())

    # The queue

    def pump(self, member: Member | None = None) -> None:
        """Hand out what waits, as far as there is room: at ``member``, or at all of them."""
        one = member is not None and self.limits.max_requests == NO_LIMIT
        bounds: list[Any] = [member] if one else self.queue.bounds()
        while self.queue and self.outstanding < self.limits.max_requests:
            ready = [bound for bound in bounds if bound.outstanding < bound.limit]
            waiter: Waiter | None = self.queue.first(None, *ready)
            if waiter is None:
                return
            found = waiter.bound or self.choose(key=getattr(waiter, "key", b""))
            if found is None:
                waiter = self.queue.first(*ready)
                if waiter is None:
                    return
                found = waiter.bound
            self.queue.remove(waiter)
            self.begin(found)
            self.handed(waiter, found)
