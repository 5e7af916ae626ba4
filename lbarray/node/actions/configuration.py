"""What changes the configuration that a node runs by."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence

import attrs

from lbarray.config.changes import Difference
from lbarray.console.actions import Action, Argument

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]

ABSENT = Argument("absent-ok", "nodes that are missing need not have it", kind="flag", required=False, default=False)


def actions(node: NodeService) -> Iterator[Action]:
    """Reloading the file; pushing one to all nodes, and taking it back."""

    def reload() -> dict[str, object]:
        found = node.configuring.reload()
        return taken_up(node, found)

    yield Action(name="reload", summary="Take up the configuration file as it is now; only what differs.", run=reload)

    def push(text: str, stage: bool, absent_ok: bool) -> object:
        return node.pushing.push(text, stage=stage, absent_ok=absent_ok)

    yield Action(
        name="push",
        summary="Give the whole array a configuration: checked by all nodes, then taken up by all, or by none.",
        arguments=(
            Argument("text", "the configuration, TOML"),
            Argument(
                "stage", "only write it to the nodes' files, for restarts", kind="flag", required=False, default=False
            ),
            ABSENT,
        ),
        run=push,
    )
    yield Action(
        name="roll-back",
        summary="Give the whole array the configuration that this node ran before the last push.",
        arguments=(ABSENT,),
        run=lambda absent_ok: node.pushing.roll_back(absent_ok=absent_ok),
    )


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
