"""What becomes of one request: IAssignment in its three forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zope.interface import implementer

from lbarray.backends.health import Seen
from lbarray.backends.pool import Member, Pool
from lbarray.backends.refusals import QueueDisplaced, QueueTimeout
from lbarray.errors import BadInput
from lbarray.http.events import OwnAnswer, ResponseHead
from lbarray.interfaces import IAssignment
from lbarray.telemetry.durations import Series
from lbarray.values import BackendAddress, BackendState, Handling, Outcome

__all__ = ["Assignment", "OwnAssignment", "PoolService"]

GENERAL = Handling()
_CONNECT_FAILED = Outcome.CONNECT_FAILED


class PoolService:
    """What assignments need of the service: kept small, so that they can be tested alone.

    :param seconds: the clock.
    :param later: ``later(delay_s, call)``, cancellable.
    :param changed: ``changed(pool, member, health)``: its health, or else its circuit, has changed.
    :param series: ``series(member)``: what counts its requests.
    """

    def __init__(
        self,
        *,
        seconds: Callable[[], float],
        later: Callable[[float, Callable[[], None]], Any],
        changed: Callable[[Pool, Member, bool], None],
        counted: Callable[[str, str], None],
        series: Callable[[Member], Series],
    ) -> None:
        self.seconds = seconds
        self.later = later
        self.changed = changed
        self.counted = counted
        self.series = series


@implementer(IAssignment)
class OwnAssignment:
    """A request that a route answers by itself."""

    __slots__ = ("answer", "handling")

    waiting = False
    target: bytes | None = None
    mirrors: Sequence[object] = ()
    backend: Any = None

    def __init__(self, answer: OwnAnswer, handling: Handling = GENERAL) -> None:
        self.answer: OwnAnswer | None = answer
        self.handling = handling

    def wait(self, ready: Callable[[BadInput | None], None]) -> None:
        """It has its answer."""
        raise AssertionError("an answer does not wait")

    def responded(self, response: ResponseHead) -> None:
        """Nobody was asked."""

    def idle_connection(self) -> object | None:
        return None

    def keep_connection(self, connection: object) -> None:
        """There is none."""

    def forget_connection(self, connection: object) -> None:
        """There is none."""

    def finished(self, outcome: Outcome) -> None:
        """Nothing was begun."""

    def another(self, unsent: bool = False) -> object | None:
        return None


@implementer(IAssignment)
class Assignment:
    """One request at one back end, or in its pool's queue.

    :param member: counted by :meth:`Pool.begin` already; ``None`` while it waits.
    :param found: the member that persistence says it belongs to; :param mark: of the persistence.
    :param edit: the route's edits of the response's fields.
    :ivar key: the hash key of the request.
    """

    __slots__ = (
        "_began_s",
        "_edit",
        "_ended_s",
        "_finished",
        "_found",
        "_latency_s",
        "_mark",
        "_member",
        "_pool",
        "_ready",
        "_secure",
        "_service",
        "_timer",
        "_tried",
        "backend",
        "bound",
        "gone",
        "handling",
        "key",
        "mirrors",
        "priority",
        "sequence",
        "target",
        "waiting",
    )

    answer: OwnAnswer | None = None

    def __init__(
        self,
        service: PoolService,
        pool: Pool,
        member: Member | None,
        handling: Handling = GENERAL,
        key: bytes = b"",
        found: Member | None = None,
        mark: bytes = b"",
        secure: bool = False,
        *,
        tried: tuple[Member, ...] = (),
        priority: int = 0,
        target: bytes | None = None,
        edit: Callable[[ResponseHead], None] | None = None,
    ) -> None:
        self._service = service
        self._pool = pool
        self._member = member
        self._found = found
        self._mark = mark
        self._secure = secure
        self._tried = tried
        self._edit = edit
        self._finished = False
        self._latency_s: float | None = None
        self._ended_s = 0.0
        self.key = key
        self.handling = handling
        self.priority = priority
        self.target = target
        self.mirrors: Sequence[object] = ()
        if member is not None:
            self.waiting = False
            self.backend: BackendAddress = member.address
            self._began_s = service.seconds()
        else:
            self.waiting = True
            self.bound = found
            self.gone = True
            self.sequence = 0
            self._ready: Callable[[BadInput | None], None] | None = None
            self._timer: Any = None

    # Waiting

    def queue(self) -> None:
        """Take a place in the pool's queue.

        :raises QueueDisplaced: it is full of requests that are as important.
        """
        pool = self._pool
        refused: Any = pool.queue.push(self)
        if refused is self:
            raise QueueDisplaced(f"the queue of pool {pool.name} is full")
        if refused is not None:
            refused.refuse(QueueDisplaced(f"the queue of pool {pool.name} is full"))
        self._timer = self._service.later(pool.limits.queue_timeout_s, self._late)

    def wait(self, ready: Callable[[BadInput | None], None]) -> None:
        self._ready = ready

    def handed(self, member: Member) -> None:
        """The queue has come to it: ``member`` counts it already."""
        if self._timer.active():
            self._timer.cancel()
        self.waiting = False
        self._member = member
        self.backend = member.address
        self._began_s = self._service.seconds()
        self._tell(None)

    def refuse(self, error: BadInput) -> None:
        """It waits no longer, and gets nobody."""
        self._pool.queue.remove(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._tell(error)

    def _late(self) -> None:
        self.refuse(QueueTimeout(f"no back end of pool {self._pool.name} had room in time"))

    def _tell(self, error: BadInput | None) -> None:
        ready, self._ready = self._ready, None
        if ready is not None:
            ready(error)

    # At a back end

    def responded(self, response: ResponseHead) -> None:
        pool = self._pool
        if pool.timed:
            self._latency_s = self._service.seconds() - self._began_s
        if self._edit is not None:
            self._edit(response)
        if pool.persistence is not None:
            pool.persistence.answered(self._member, self._member is self._found, self._mark, response, self._secure)

    def idle_connection(self) -> object | None:
        assert self._member is not None
        return self._pool.connection(self._member)

    def keep_connection(self, connection: object) -> None:
        member = self._member
        assert member is not None
        if member.health.serves and self._pool.has(member):
            member.idle.store(connection, self._ended_s)
        else:
            connection.close()  # type: ignore[attr-defined]  # the contract of IAssignment

    def forget_connection(self, connection: object) -> None:
        assert self._member is not None
        self._member.idle.forget(connection)

    def finished(self, outcome: Outcome) -> None:
        if self._finished:
            return
        self._finished = True
        member, pool, service = self._member, self._pool, self._service
        if member is None:  # it gives up its place in the queue, if it has not been refused already
            self._ready = None
            self.refuse(QueueTimeout("the client has gone"))
            return
        series = member.series
        if series is None:
            series = member.series = service.series(member)
        now = self._ended_s = service.seconds()
        series.observe(now - self._began_s, outcome._value_)  # as ``value``, without a call
        if pool.end(member, outcome, self._latency_s, now):
            service.changed(pool, member, False)
        refused = outcome is _CONNECT_FAILED and member.health.state is BackendState.UP
        # Traffic is a probe as well: who takes no connection need not be asked three more times.
        if refused and member.health.saw(Seen(False, "took no connection"), now):
            service.changed(pool, member, True)

    def another(self, unsent: bool = False) -> Assignment | None:
        pool, member = self._pool, self._member
        assert member is not None
        tried = (*self._tried, member)
        if not pool.may_retry(len(tried), unsent=unsent):
            self._service.counted("retries_refused", pool.name)
            return None
        following = pool.choose(tried, self.key)
        if following is None:
            return None
        pool.begin(following)
        return Assignment(
            self._service,
            pool,
            following,
            found=self._found,
            mark=self._mark,
            secure=self._secure,
            key=self.key,
            tried=tried,
            handling=self.handling,
            priority=self.priority,
            target=self.target,
            edit=self._edit,
        )
