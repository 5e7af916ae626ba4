"""What a node tells the other nodes of itself."""

from __future__ import annotations

import time
import typing

import attrs

from lbarray.kernel.processors import ProcessorUse
from lbarray.node.identity import program_version
from lbarray.values import Address, Load, NodeReport, Role

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["Reporting"]


class Reporting:
    """Asks the parts of a node how they are, as they are at that moment."""

    def __init__(self, node: NodeService) -> None:
        self._node = node
        self._processors = ProcessorUse()
        self._incarnation = time.time_ns()

    def report(self) -> NodeReport:
        """All of it, for the next heartbeat."""
        node = self._node
        own = node.config.array.nodes[node.node_name]
        roles = Role.NONE
        if node.scheduler is not None and node.scheduler.active:
            roles |= Role.SCHEDULER
        if node.worker is not None:
            roles |= Role.WORKER
        if node.feedback is not None:
            node.feedback.look()
        return NodeReport(
            name=node.node_name,
            address=own.address,
            mac=node.mac,
            roles=roles,
            load=self._load(),
            accepting=self._accepting(),
            draining=node.draining,
            weight=node.weighing.weight if node.weighing is not None else own.weight,
            able=node.prober.able if node.prober is not None else None,
            trouble=node.direct_return.trouble if node.direct_return is not None else "",
            share=node.feedback.share if node.feedback is not None else 1000,
            incarnation=self._incarnation,
            owned=self._announced(),
            configuration=node.configuring.version,
            version=program_version(),
        )

    def _announced(self) -> tuple[Address, ...]:
        """The VIPs whose packets come to this node."""
        if self._node.routes is not None:
            return self._node.routes.active
        return self._node.failover.active if self._node.failover is not None else ()

    def _accepting(self) -> bool:
        """Our listeners accept, and we know the rows that they get their clients by."""
        node = self._node
        return (
            node.acceptance is not None
            and node.acceptance.accepting
            and node.worker is not None
            and node.worker.serving
            and node.membership is not None
            and node.membership.settled
            and not (node.history is not None and node.history.pending)
        )

    def taking(self) -> bool:
        """New clients are welcome."""
        return self._accepting() and not self._node.draining

    def _load(self) -> Load:
        if self._node.feedback is None or self._node.worker is None:
            return Load()
        # As it is now: somebody may wait for the last client to leave.
        return attrs.evolve(self._node.feedback.load, connections=self._node.worker.connections)

    def measure(self) -> Load:
        """How busy the worker is; rates are over the time since the last call."""
        assert self._node.worker is not None
        return attrs.evolve(self._node.worker.load(), cpu=self._processors.since_last())
