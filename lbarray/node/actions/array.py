"""What changes this node's part in the array."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from lbarray.console.actions import Action, Argument, Refused

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Draining the node; handing the VIPs over."""

    def drain(draining: bool) -> dict[str, object]:
        node.drain(draining)
        said = "takes no new clients; those that are here stay until they leave" if draining else "takes new clients"
        return {"node": node.node_name, "draining": draining, "said": f"node {node.node_name} {said}"}

    yield Action(
        name="drain",
        summary="Take no new clients on this node, or take them again.",
        arguments=(Argument("draining", "false ends it", kind="flag", required=False, default=True),),
        run=drain,
    )

    failover = node.failover
    if failover is not None:

        def step_down() -> dict[str, object]:
            if not failover.step_down():
                raise Refused(f"node {node.node_name} owns no VIP; lbarray status says which node does")
            return {"node": node.node_name, "said": f"node {node.node_name} hands the VIPs over"}

        yield Action(name="step-down", summary="Hand the VIPs to another node.", run=step_down)
