"""Builds the services of one node from a configuration. The only room that knows every part."""

from __future__ import annotations

import typing

if typing.TYPE_CHECKING:
    from lbarray.node.identity import journal_of, node_name
    from lbarray.node.service import NodeService

__all__ = ["NodeService", "journal_of", "node_name"]


def __getattr__(name: str) -> typing.Any:
    # A worker process has some parts of a node: it should neither load the others nor keep them in memory.
    if name == "NodeService":
        from lbarray.node.service import NodeService

        return NodeService
    if name in __all__:
        from lbarray.node import identity

        return getattr(identity, name)
    raise AttributeError(name)
