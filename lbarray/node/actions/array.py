"""What changes this node's part in the array."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from lbarray.console.actions import Action, Argument

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Draining and weighing nodes."""

    yield Action(
        name="drain",
        summary="Let a node take no new clients, or take them again.",
        arguments=(
            Argument("name", "which node of the array; this one unless given", required=False),
            Argument("draining", "false ends it", kind="flag", required=False, default=True),
            Argument("force", "also when nobody else takes clients", kind="flag", required=False, default=False),
        ),
        run=node.drainage.order,
    )
    yield Action(
        name="draining",
        summary="Which nodes drain, and how many connections each still has.",
        run=node.drainage.progress,
        changes=False,
    )
    if node.weighing is None:
        return
    yield Action(
        name="weigh",
        summary="Change a node's part of the clients until it starts anew or takes up a configuration.",
        arguments=(
            Argument("name", "which node of the array; this one unless given", required=False),
            Argument("weight", "its part against the other nodes' weights, from 1 to 1000", kind="integer"),
        ),
        run=node.weighing.order,
    )
