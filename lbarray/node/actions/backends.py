"""What changes the back ends while nodes run."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator

from lbarray.backends.service import BackendsService
from lbarray.config.scalars import HOST_PORT, NAME, Rejected
from lbarray.console.actions import Action, Argument, BadArgument, Refused

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]

POOL = Argument("pool", "the pool's name")
BACKEND = Argument("backend", "the back end's name in its pool")
EVERYWHERE = Argument(
    "everywhere", "on all nodes of the array, not only on this one", kind="flag", required=False, default=True
)
WEIGHT = Argument("weight", "its part of the pool's requests, from 1 to 1000", kind="integer")


def actions(node: NodeService) -> Iterator[Action]:
    """Draining, weighing, adding and removing back ends. All of it lasts until the next start or reload."""
    if node.backends is None:
        return

    def done(pool: str, backend: str, everywhere: bool, said: str, **more: object) -> dict[str, object]:
        where = "" if not everywhere or node.config.standalone else ", on all nodes"
        return {"pool": pool, "backend": backend, **more, "said": f"back end {pool}/{backend} {said}{where}"}

    def change(everywhere: bool, what: Callable[[BackendsService], object]) -> object:
        backends = node.backends
        assert backends is not None
        try:
            with backends.telling(everywhere):
                return what(backends)
        except ValueError as error:
            raise Refused(str(error)) from None

    def drain(pool: str, backend: str, draining: bool, everywhere: bool) -> dict[str, object]:
        change(everywhere, lambda backends: backends.drain(pool, backend, draining))
        said = "gets no new clients; those bound to it still come" if draining else "gets new clients"
        return done(pool, backend, everywhere, said, draining=draining)

    def weigh(pool: str, backend: str, weight: int, everywhere: bool) -> dict[str, object]:
        change(everywhere, lambda backends: backends.set_weight(pool, backend, weight))
        return done(pool, backend, everywhere, f"has the weight {weight}", weight=weight)

    def add(pool: str, backend: str, address: str, weight: int, everywhere: bool) -> dict[str, object]:
        try:
            NAME(backend)
            place = HOST_PORT(address)
        except Rejected as error:
            raise BadArgument(f"found {str(error.found)[:80]!r}; accepted: {error.accepted}") from None
        host, port = typing.cast(tuple[str, int], (place.host, place.port))  # type: ignore[attr-defined]
        change(everywhere, lambda backends: backends.add(pool, backend, host, port, weight))
        return done(pool, backend, everywhere, f"is added at {place}", address=str(place), weight=weight)

    def remove(pool: str, backend: str, everywhere: bool) -> dict[str, object]:
        left = change(everywhere, lambda backends: backends.remove(pool, backend))
        said = f"is removed; {left} requests of this node go on to their end"
        return done(pool, backend, everywhere, said, outstanding=left)

    yield Action(
        name="drain-backend",
        summary="Give a back end no new clients, or give it clients again.",
        arguments=(
            POOL,
            BACKEND,
            Argument("draining", "false ends it", kind="flag", required=False, default=True),
            EVERYWHERE,
        ),
        run=drain,
    )
    yield Action(
        name="weigh-backend",
        summary="Change a back end's part of its pool.",
        arguments=(POOL, BACKEND, WEIGHT, EVERYWHERE),
        run=weigh,
    )
    yield Action(
        name="add-backend",
        summary="Add a back end to a pool.",
        arguments=(
            POOL,
            BACKEND,
            Argument("address", "host:port, such as 10.0.0.24:80"),
            Argument("weight", WEIGHT.help, kind="integer", required=False, default=1),
            EVERYWHERE,
        ),
        run=add,
    )
    yield Action(
        name="remove-backend",
        summary="Take a back end out of its pool; requests in hand go on to their end.",
        arguments=(POOL, BACKEND, EVERYWHERE),
        run=remove,
    )
