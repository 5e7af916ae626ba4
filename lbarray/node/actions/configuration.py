"""What changes the configuration that a node runs by."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence

import attrs

from lbarray.config.changes import Difference
from lbarray.console.actions import Action

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Reloading the file."""

    def reload() -> dict[str, object]:
        found = node.configuring.reload()
        return taken_up(node, found)

    yield Action(name="reload", summary="Take up the configuration file as it is now; only what differs.", run=reload)


def taken_up(node: NodeService, found: Sequence[Difference]) -> dict[str, object]:
    """What a node answers that has taken up a configuration."""
    file = node.configuring.file
    version = file.version if file else ""
    listed = "".join(f"\n  {difference}" for difference in found) or " nothing differs"
    return {
        "node": node.node_name,
        "version": version,
        "differences": [attrs.asdict(difference) for difference in found],
        "said": f"node {node.node_name} runs configuration {version}:{listed}",
    }
