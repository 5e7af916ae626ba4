"""What changes the back ends, as this node uses them."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from lbarray.console.actions import Action, Argument

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]

POOL = Argument("pool", "the pool's name")
BACKEND = Argument("backend", "the back end's name in its pool")


def actions(node: NodeService) -> Iterator[Action]:
    """Draining a back end."""
    backends = node.backends
    if backends is None:
        return

    def drain(pool: str, backend: str, draining: bool) -> dict[str, object]:
        backends.drain(pool, backend, draining)
        said = "gets no new clients; those bound to it by their cookie still come" if draining else "gets new clients"
        return {"pool": pool, "backend": backend, "draining": draining, "said": f"back end {pool}/{backend} {said}"}

    yield Action(
        name="drain-backend",
        summary="Give a back end no new clients, or give it clients again.",
        arguments=(POOL, BACKEND, Argument("draining", "false ends it", kind="flag", required=False, default=True)),
        run=drain,
    )
