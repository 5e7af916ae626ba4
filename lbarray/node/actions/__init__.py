"""What operators can ask of a node and change in it. One module for each subject; a new one is a line here."""

from __future__ import annotations

import typing

from lbarray.console.actions import Actions
from lbarray.node.actions import array, backends, certificates, configuration, failover, flows, workers

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["node_actions"]

SUBJECTS = (array, backends, certificates, configuration, failover, flows, workers)


def node_actions(node: NodeService) -> Actions:
    """Every action that makes sense for the roles of this node."""
    return Actions(action for subject in SUBJECTS for action in subject.actions(node))
