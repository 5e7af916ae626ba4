"""Worker processes of a node."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from lbarray.console.actions import Action
from lbarray.worker.processes.parent import WorkerProcesses

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Only where there are any."""
    worker = node.worker
    if not isinstance(worker, WorkerProcesses):
        return

    def replace() -> dict[str, object]:
        worker.replace()
        return {"said": "a new generation of worker processes starts; it takes over when all of it is ready"}

    yield Action(name="replace-workers", summary="Start new worker processes; the old ones drain.", run=replace)
