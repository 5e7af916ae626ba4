"""The seams of lbarray: where rooms meet, and where a plug-in fits in.

Each interface is a contract. A provider passes ``verifyObject`` and, where ``lbarray.testing`` has
one, the public suite of tests for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from zope.interface import Attribute, Interface

from lbarray.errors import BadInput
from lbarray.http.events import OwnAnswer, RequestHead, ResponseHead
from lbarray.values import (
    Address,
    BackendAddress,
    ClientAddress,
    Handling,
    NodeReport,
    Outcome,
    PlaneCounters,
    PlaneFlow,
    PlaneService,
    ServiceId,
    WorkerCost,
    WorkerTarget,
)

__all__ = [
    "IArrayChannel",
    "IAssignment",
    "IBalancePolicy",
    "IBodyFilter",
    "IContentFilter",
    "IForwardingPlane",
    "IHealthProbe",
    "IMembershipSource",
    "IPersistence",
    "IRequestScheduler",
    "IResponseFilter",
    "IRewriteFilter",
    "IRewriteFilterFactory",
    "IServiceProtocol",
    "ITreeFilter",
]


class IForwardingPlane(Interface):
    """Moves the packets of the VIPs. Everything here is called from the reactor's thread.

    Order: ``attach``, then any of the others, then ``detach``. A plane that is attached but
    active for no VIP passes every packet up, untouched.
    """

    name: str = Attribute("``xdp``, ``xdp-generic``, ``tc`` or ``packet``: what the operator reads")

    def attach() -> None:
        """Load and connect to the interface; inactive.

        :raises lbarray.errors.SystemRefused: the kernel would not; nothing is left behind.
        """

    def detach() -> None:
        """Disconnect and free everything. Idempotent; does not raise."""

    def set_active(vips: Collection[Address]) -> None:
        """Forward the packets of these VIPs from now on, and pass those of others up; none at all: forward nothing.

        Several planes may be active for one VIP at once (equal-cost multipath): their rows are the same.
        A VIP without a service is of no effect.

        :raises lbarray.errors.SystemRefused: the kernel said no.
        """

    def set_services(services: Sequence[PlaneService]) -> None:
        """Replace the services whose packets are scheduled.

        :raises lbarray.errors.SystemRefused: the kernel said no; the previous set stands.
        """

    def set_workers(workers: Sequence[WorkerTarget]) -> None:
        """Replace what is known of workers, by index. A row that names an unknown one passes up."""

    def apply(rows: bytes) -> None:
        """Replace all rows; a packet meets the old rows or the new rows, never half a change.

        What is known of open connections stays: their packets go where they went before, as long as that worker
        is known.

        :param rows: for each row the index of the worker that gets its new connections, and of the last three that
            had it before and may still hold some (second chance), the newest first. Unsigned 16-bit numbers in the
            machine's order, 0xFFFF for nobody; as many rows as the plane was made for.
        :raises ValueError: another number of rows.
        :raises lbarray.errors.SystemRefused: the kernel said no.
        """

    def set_costs(costs: Mapping[int, WorkerCost]) -> None:
        """What each worker bears now, by index: told about once a second, for services with ``least_loaded``. Of two
        workers the one that bears less gets a new connection; one of which nothing is told is not chosen over
        another.

        :raises lbarray.errors.SystemRefused: the kernel said no.
        """

    def check() -> str:
        """Why the packets are not forwarded as they should be; empty while they are. Puts right what it can first,
        such as a program that somebody took away. Looks at the kernel, quickly enough for once a second."""

    def counters() -> PlaneCounters:
        """What has been done since ``attach``."""

    def flows(limit: int) -> Sequence[PlaneFlow]:
        """Connections that the plane remembers, at most ``limit`` of them, in no order; some may have ended."""


class IMembershipSource(Interface):
    """Tells who is in the array. The heartbeat service is one."""

    def members() -> Sequence[NodeReport]:
        """The living members, this node included, ordered by name."""

    def subscribe(changed: Callable[[Sequence[NodeReport]], None]) -> Callable[[], None]:
        """Call ``changed`` with the new members after each change of who, accepting, draining,
        weight or MAC (not of load alone). Returns a callable that ends it."""


class IArrayChannel(Interface):
    """Tells the other nodes something. Whatever arrives was sent by a node of this array, is hidden from others and
    comes once; but some may never arrive, and later may overtake earlier.

    A topic is a word of a room (``drain``, ``persistence``): up to 32 octets, and the same for all versions
    of its payload.
    """

    def publish(topic: str, payload: bytes, to: str | None = None) -> None:
        """Send to every other node, or to the one named ``to``. Does not block; nothing happens while
        the node is not running, or when ``to`` is no other node.

        :raises ValueError: a payload of more than 1,200 octets, or a topic of more than 32.
        """

    def subscribe(topic: str, received: Callable[[str, bytes], None]) -> Callable[[], None]:
        """Call ``received(name of the sending node, payload)`` for each message of this topic; when it raises
        :class:`lbarray.errors.BadInput`, that is counted. Returns a callable that ends it."""


class IBalancePolicy(Interface):
    """Picks a back end for each request of one pool. Synchronous; must not block.

    Members are ``backends.pool.Member`` objects: ``address``, ``weight`` (the configuration's), ``share`` (weight
    as it counts now, above 0: less than the weight while it recovers) and ``outstanding``.
    Made by an ``IBalancePolicyMaker`` of :mod:`lbarray.plugin`, found through ``twisted.plugin``.
    """

    follows: bool = Attribute("``began`` and ``ended`` shall be called")

    def update(members: Sequence[object], fit: Sequence[object]) -> None:
        """From now on the pool has ``members``, of which ``fit`` may have requests, both in the configuration's
        order. Called before everything else and after each change of members, health, weights or shares."""

    def choose(key: bytes, avoid: Collection[object]) -> object | None:
        """One of ``fit`` that is not in ``avoid``; ``None`` when there is none. ``key`` is the hash key of
        the request, or ``b""``. ``avoid`` is nearly always empty: members tried already, or full."""

    def began(member: object) -> None:
        """A request was given to ``member``, whose ``outstanding`` counts it."""

    def ended(member: object, latency_s: float | None) -> None:
        """It is over and not counted any more; ``latency_s``: until its response's head, where that came."""


class IPersistence(Interface):
    """Brings requests of one client back to one member. Synchronous; must not block."""

    def update(members: Sequence[object], serving: Collection[object]) -> None:
        """The pool has ``members``; ``serving`` ones may have requests of their own clients (also while
        they drain). Called like :meth:`IBalancePolicy.update`."""

    def find(request: RequestHead, client: ClientAddress) -> tuple[object | None, bytes]:
        """The serving member that the request belongs to, or ``None``; and a mark to remember it by. May
        take its own cookie out of the request."""

    def knows(request: RequestHead, client: ClientAddress) -> bool:
        """The request belongs to a serving member because its client was there, not by computation alone. Changes
        nothing of the request: the pools of a split are asked before one of them is chosen."""

    def answered(member: object, found: bool, mark: bytes, response: ResponseHead, secure: bool) -> None:
        """``member`` answers a request that ``find`` gave ``mark`` for; ``found``: it is the one that was
        found. May add to ``response.fields`` and learn from them. ``secure``: the client came over TLS."""

    def tick(now: float) -> bool:
        """About once a second; true when clients have moved."""


class IHealthProbe(Interface):
    """Tries one back end once."""

    def probe(backend: BackendAddress) -> object:
        """A Deferred of ``(passed: bool, said: str)``; never fails; cancelled on time-out."""


class IAssignment(Interface):
    """What becomes of one request: a back end now, a back end soon, or an answer without one.

    The caller looks at ``answer`` first, then at ``waiting``; otherwise ``backend`` is set. Whatever
    happens, ``finished`` is called once per assignment (not for one with an ``answer``).
    """

    answer: OwnAnswer | None = Attribute("send this and ask no back end (redirect, fixed answer); usually ``None``")
    waiting: bool = Attribute("the request is in the pool's queue: call ``wait`` before anything else")
    backend: BackendAddress = Attribute("where to send the request; not set while ``waiting``")
    target: bytes | None = Attribute(
        "the request target for the back end where the route rewrites paths; ``None`` means as it came. "
        "``request.target`` stays what the client asked, for filters and logs"
    )
    handling: Handling = Attribute("limits of this request's route; the same object for all of its requests")
    mirrors: Sequence[object] = Attribute(
        "further IAssignments that get a copy of head and content; what they answer is dropped, nobody waits "
        "for them, and a slow or dead one never holds the request up. Each has its own ``finished``. Often empty"
    )

    def wait(ready: Callable[[BadInput | None], None]) -> None:
        """Once, and only where ``waiting``. ``ready`` is called later, once: with ``None`` when ``backend`` is
        set, or with the refusal (503) when the queue's deadline has passed. ``finished(Outcome.CLIENT_GONE)``
        gives the place in the queue up; ``ready`` is not called then."""

    def responded(response: ResponseHead) -> None:
        """Call once with the final response's head (not for 1xx), before filters and client see it. Edits
        ``response.fields`` in place (persistence cookie, the route's edits) and learns from them (session
        ids, time to the first octet)."""

    def idle_connection() -> object | None:
        """An open back-end connection that nobody uses, taken out of the store, or ``None``."""

    def keep_connection(connection: object) -> None:
        """Store a connection that may be used again, behind :meth:`finished`. It has ``close()``; the store may call it
        at any time it holds the connection, and the owner calls ``forget_connection`` when it dies."""

    def forget_connection(connection: object) -> None:
        """The stored connection died by itself. Unknown ones are ignored."""

    def finished(outcome: Outcome) -> None:
        """The request is over: counts for outstanding and passive health."""

    def another(unsent: bool = False) -> object | None:
        """Another assignment after this one failed before anything was answered, never a ``waiting`` one.
        ``unsent``: no connection was had, so the back end has not worked on it and no budget is touched.
        ``None`` when no other back end is left to try or the route's and the pool's retries are used up. The
        caller knows whether the request may be repeated. Still call ``finished`` of this one."""


class IRequestScheduler(Interface):
    """Gives each request its back end. On the path of every request: plain calls, no Deferred."""

    def assign(service: ServiceId, request: RequestHead, client: ClientAddress) -> object:
        """An :class:`IAssignment`, counted as outstanding until its ``finished``.

        ``request.fields`` are edited in place to what the back end shall get: the route's header edits,
        without the persistence cookie. ``request.target`` and ``request.host`` stay as they are.

        :raises lbarray.errors.BadInput: with ``status`` 404 where no route matches, 413 where the request is
            larger than its route allows, 503 where the pool has nobody to give or its queue is full;
            ``answer_fields`` go into the answer (Retry-After).
        """


class IBodyFilter(Interface):
    """Changes the content of one response while it streams. Not used again after ``finish``."""

    waiting: object = Attribute(
        "``None``; or, after ``feed`` or ``finish``, a Deferred: work that would have held up the reactor goes on, in "
        "a thread or in slices. It fires with anything when there is more to have, from the reactor's thread and "
        "not during the call; then the same is called again: ``feed(b'')`` or ``finish()``. It may be cancelled."
    )

    def feed(data: bytes) -> bytes:
        """Content in, content out (maybe empty). Fails open: after its own error a filter hands out
        what it held and then everything as it came; it does not raise."""

    def finish() -> bytes:
        """The last content. Called while ``waiting`` is ``None``."""


class IResponseFilter(Interface):
    """Decides, response by response, whether to change content; shared by all connections."""

    def open(request: RequestHead, response: ResponseHead, client: ClientAddress) -> object | None:
        """An :class:`IBodyFilter` for this response, whose ``fields`` were changed to match
        (Content-Length, validators, …), or ``None``: its content stays as it is (its fields may have changed)."""

    def prepare(request: RequestHead) -> None:
        """Change the request's fields before it goes to the back end: codings we cannot read do
        not belong in ``Accept-Encoding``, range requests cannot be rewritten."""


class IServiceProtocol(Interface):
    """What the clients of a service speak, in place of HTTP; found by ``twisted.plugin`` and used by
    ``services.NAME.protocol`` of the configuration.

    A module in ``twisted/plugins`` holds an object that provides this and ``twisted.plugin.IPlugin``.
    """

    name: str = Attribute("what ``protocol`` in the configuration says; letters, digits, ``-``, ``_`` and ``.``")

    def factory(**settings: object) -> object:
        """A :class:`lbarray.worker.factory.ClientFactory`, or one of its kind, for one service: called with the
        arguments of that class. Its connections come after the PROXY header and TLS. To change the side of the
        back ends, replace its ``backend_connection``."""


class IRewriteFilterFactory(Interface):
    """Makes filters of one kind; found by ``twisted.plugin`` and used by ``[[filters]]`` of the configuration.

    A module in ``twisted/plugins`` holds an object that provides this and ``twisted.plugin.IPlugin``.
    """

    name: str = Attribute("what ``use`` in the configuration says; letters, digits, ``-``, ``_`` and ``.``")

    def filter(options: Mapping[str, object]) -> object:
        """An :class:`IRewriteFilter` for one entry of the configuration, whose ``options`` are these.

        :raises ValueError: they will not do; its text says what would be accepted.
        """


class IRewriteFilter(Interface):
    """Looks at the responses of its routes. Called from the reactor's thread; must not block, but for
    :meth:`ITreeFilter.change`. A filter that raises loses nothing: the response goes on as it was before it."""

    name: str = Attribute("in counters and in the log")

    def open(page: object, response: ResponseHead) -> object | None:
        """Look at one response, whatever it is: its status, its media type.

        The fields may be changed here. Returns an :class:`IContentFilter` or an :class:`ITreeFilter` when the content
        is to be changed as well (lengths, digests and entity tags are then seen to), or ``None``.

        :param page: a :class:`lbarray.rewrite.plugins.PageContext`.
        """


class IContentFilter(Interface):
    """Changes the content of one response while it streams. It is given plain octets, whatever the coding."""

    held: bytes = Attribute("what was fed and has not been given out, as it came: after an error it leaves as it is")

    def feed(data: bytes) -> bytes:
        """Content in, content out (maybe empty)."""

    def finish() -> bytes:
        """The last content."""


class ITreeFilter(Interface):
    """Changes one page as a tree. The page is held until it is complete, up to ``max_size`` octets."""

    def change(soup: Any) -> None:
        """Called in a thread, with a ``bs4.BeautifulSoup`` of the whole page; what it is afterwards leaves."""
