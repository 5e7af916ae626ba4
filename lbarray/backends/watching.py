"""Active health checks: when each back end is looked at, by which node."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbarray.backends.health import Seen
from lbarray.backends.pool import Member, Pool

__all__ = ["Watch", "Watcher"]

TOPIC = "health"
#: Another node's look delays our own by so much of the interval beyond it; each so many looks we look ourselves.
BEYOND = 0.35
OWN_EVERY = 10


class Watch:
    """How a pool's members are probed. ``probe`` is an :class:`lbarray.interfaces.IHealthProbe`.

    :param shared: nodes tell each other what they saw, and look less often themselves.
    """

    def __init__(self, *, probe: Any, interval_s: float, shared: bool = False) -> None:
        self.probe = probe
        self.interval_s = interval_s
        self.shared = shared


class Watcher:
    """Looks at every member of the watched pools, a little out of step with other nodes.

    Where a watch is shared, whoever looks first tells the others over the array's channel, and each of them
    puts its own next look off beyond the next one that it expects from there. So one node does nearly all
    the looking, nobody is chosen for it, and when it falls silent the next one looks within half an
    interval. Each node still looks itself now and then: its own way to the back end may be broken.

    :param saw: ``saw(pool, member, seen)`` for every result.
    :param chance: a number from 0 to 1.
    :ivar looks: at members of each pool; :ivar seen: results, those that other nodes told too.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        pools: Mapping[str, Pool],
        watches: Mapping[str, Watch],
        saw: Callable[[Pool, Member, Seen], None],
        chance: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._pools = pools
        self._watches = dict(watches)
        self._saw = saw
        self._chance = chance
        self._calls: dict[Member, IDelayedCall] = {}
        self._looking: dict[Member, Deferred[Any]] = {}
        self._heard: dict[Member, int] = {}
        self._channel: Any = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self.running = False
        self.looks: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()

    def share(self, channel: Any) -> None:
        """Tell other nodes, and hear them, over an :class:`lbarray.interfaces.IArrayChannel`."""
        self._unsubscribe()
        self._channel = channel
        self._unsubscribe = channel.subscribe(TOPIC, self._hear)

    def start(self) -> None:
        """Begin: at once, but not all in the same instant."""
        self.running = True
        self._watch_all()

    def _watch_all(self) -> None:
        for pool in self._pools.values():
            watch = self._watches.get(pool.name)
            spread = min(0.01, watch.interval_s / max(1, len(pool.members))) if watch is not None else 0.0
            for place, member in enumerate(pool.members.values()):
                if watch is None:
                    self.removed(member)
                    member.health.unwatched(self._reactor.seconds())
                elif member not in self._calls and member not in self._looking:
                    self._later(pool, member, spread * place)
            pool.refresh()

    def reconfigure(self, watches: Mapping[str, Watch], retired: Iterable[Member]) -> None:
        """Watch like this from now on; who need not be watched any more is taken to be well."""
        self._watches = dict(watches)
        for member in retired:
            self.removed(member)
        if self._channel is not None:
            self.share(self._channel)
        if self.running:
            self._watch_all()

    def stop(self) -> None:
        """Look no more."""
        self.running = False
        self._unsubscribe()
        for call in self._calls.values():
            if call.active():
                call.cancel()
        self._calls.clear()
        for looking in list(self._looking.values()):
            looking.cancel()

    def added(self, pool: Pool, member: Member) -> None:
        """A member has come while running."""
        if pool.name in self._watches and self.running:
            self._later(pool, member, 0.0)

    def removed(self, member: Member) -> None:
        """A member has gone while running."""
        call = self._calls.pop(member, None)
        if call is not None and call.active():
            call.cancel()
        self._heard.pop(member, None)
        looking = self._looking.get(member)
        if looking is not None:
            looking.cancel()

    def _later(self, pool: Pool, member: Member, delay: float) -> None:
        self._calls[member] = self._reactor.callLater(delay, self._look, pool, member)

    def _look(self, pool: Pool, member: Member) -> None:
        del self._calls[member]
        watch = self._watches[pool.name]
        self.looks[pool.name] += 1
        self._heard[member] = 0
        looking = self._looking[member] = watch.probe.probe(member.address)
        looking.addCallbacks(lambda seen: self._seen(pool, member, watch, seen), self._unseen)
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

    def _seen(self, pool: Pool, member: Member, watch: Watch, seen: Seen) -> None:
        if watch.shared and self._channel is not None:
            told = {"p": pool.name, "b": member.address.name, "at": _place(member), "ok": seen.passed}
            self._channel.publish(TOPIC, json.dumps({**told, "said": seen.said[:200]}).encode())
        self.seen[pool.name] += 1
        self._saw(pool, member, seen)

    def _hear(self, node: str, payload: bytes) -> None:
        try:
            told = json.loads(payload)
            pool = self._pools[told["p"]]
            member = pool.members[told["b"]]
            seen = Seen(bool(told["ok"]), f"{told['said']} (seen by node {node})")
        except (ValueError, KeyError, TypeError):
            return  # another configuration than ours, for the moment of a change
        watch = self._watches.get(pool.name)
        if watch is None or not watch.shared or told.get("at") != _place(member):
            return
        call = self._calls.get(member)
        heard = self._heard[member] = self._heard.get(member, 0) + 1
        if call is not None and call.active() and heard < OWN_EVERY:
            wait = watch.interval_s * (1.1 + BEYOND * self._chance())
            call.reset(wait)
        self.seen[pool.name] += 1
        self._saw(pool, member, seen)


def _place(member: Member) -> str:
    return f"{member.address.host}:{member.address.port}"
