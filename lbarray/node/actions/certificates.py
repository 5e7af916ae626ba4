"""Certificates of a node's services: what is in use, and reading them anew."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from lbarray.console.actions import Action

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Only where clients are served."""
    if node.worker is None:
        return

    def reload() -> dict[str, object]:
        worker = node.worker
        done = worker.reload_certificates() if worker is not None else {}
        words = [f"{name}: {'read anew' if used else 'kept, see the log'}" for name, used in done.items()]
        return {"services": done, "said": "; ".join(words) or "no service has TLS"}

    yield Action(name="reload-certificates", summary="Read the certificates of every service anew.", run=reload)
