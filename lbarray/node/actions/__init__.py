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
    """Every action that makes sense for the roles of this node, and why the others do not."""
    alone = "this node stands alone (no [array.nodes]): "
    absent = {
        "handover": alone + "it has no VIP that another node could have",
        "step-down": alone + "it has no VIP that another node could have",
        "where": alone + "every client's packets come to it",
        "flows": alone + "it sends no packets to others; lbarray flows --held lists the connections that it holds",
        "weigh": alone + "it has nobody to share clients with",
    }
    if not node.config.standalone:
        bgp = 'with failover.mode = "bgp" every node announces the VIPs: lbarray drain takes this one out'
        idle = "this node is no scheduler: ask one that is (lbarray status)"
        absent = {"handover": bgp, "step-down": bgp, "where": idle, "flows": idle}
        if node.routes is None:
            absent |= {"handover": idle, "step-down": idle}
    absent["replace-workers"] = "this node serves in its own process (worker.processes = 0): restart it instead"
    return Actions((action for subject in SUBJECTS for action in subject.actions(node)), absent)
