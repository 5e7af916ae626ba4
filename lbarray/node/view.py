"""What operators see of a node, and the services that show it."""

from __future__ import annotations

import typing
from collections.abc import Callable

from twisted.application.service import Service

from lbarray.console.manhole import ManholeService
from lbarray.console.service import ApiService, ApiSocketService
from lbarray.console.view import NodeView
from lbarray.node.actions import node_actions
from lbarray.node.identity import program_version
from lbarray.worker.processes.parent import WorkerProcesses

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["make_console", "node_view"]


def node_view(node: NodeService) -> NodeView:
    """Everything that can be asked of a node, and everything that can be done to it."""

    def parts() -> dict[str, Callable[[], object]]:
        # Asked each time: a reload may bring a part, or take it away.
        there: dict[str, Callable[[], object]] = {}
        for key, part in (
            ("configuration", node.configuring),
            ("reactor", node.lag),
            ("failover", node.failover),
            ("routes", node.routes),
            ("scheduler", node.scheduler),
            ("membership", node.membership),
            ("feedback", node.feedback),
            ("direct_return", node.direct_return),
            ("probes", node.prober),
            ("services", node.worker),
        ):
            if part is not None:
                there[key] = part.status
        if node.rewriting is not None:
            there["rewriting"] = lambda: rewriting_status(node)
        if node.backends is not None:
            there["balancing"] = lambda: balancing_status(node)
            there["pools"] = lambda: pools_status(node)
        if isinstance(node.worker, WorkerProcesses):
            there["workers"] = node.worker.processes_status
        return there

    return NodeView(
        node=node.node_name,
        array=node.config.array.name,
        version=program_version(),
        uptime_s=node.uptime_s,
        counters=node.counters,
        parts=parts,
        measure=lambda: node.worker.measure() if isinstance(node.worker, WorkerProcesses) else None,
        actions=node_actions(node),
        events=node.events,
    )


def pools_status(node: NodeService) -> dict[str, object]:
    """The back ends as the node sees them, with what its worker processes did."""
    assert node.backends is not None
    status = node.backends.status()
    if isinstance(node.worker, WorkerProcesses):
        for pool, members in node.worker.pools().items():
            own = status.get(pool)
            for name, sums in members.items():
                if isinstance(own, dict) and name in own:
                    own[name].update(sums)
                    if sums["ejected"]:  # each process has a circuit of its own; one that is open is worth seeing
                        own[name]["circuit"] = "open"
    return status


def rewriting_status(node: NodeService) -> dict[str, object]:
    """Rewriting, with the memory that worker processes keep results in; what they did is counted already."""
    assert node.rewriting is not None
    status = node.rewriting.status()
    memo = status.get("memo")
    if isinstance(memo, dict) and isinstance(node.worker, WorkerProcesses):
        memo["octets"] = node.worker.memo_octets
    return status


def balancing_status(node: NodeService) -> dict[str, object]:
    """The pools as a whole, with what worker processes have in hand."""
    assert node.backends is not None
    status = node.backends.load_status()
    if isinstance(node.worker, WorkerProcesses):
        for pool, sums in node.worker.balancing().items():
            own = status.get(pool)
            if isinstance(own, dict):
                own.update(sums)
    return status


def make_console(node: NodeService, view: NodeView) -> list[Service]:
    """What an operator looks through: it starts first and stops last."""
    config = node.config
    console = config.console
    services: list[Service] = [
        ApiService(
            reactor=node.reactor,
            host=console.status.host,
            port=console.status.port,
            view=view,
            token_file=console.token_file,
            tls=console.tls,
        ),
        ApiSocketService(
            reactor=node.reactor, state_dir=config.array.state_dir, view=view, required=not config.standalone
        ),
    ]
    manhole = console.manhole
    if manhole is not None:
        services.append(
            ManholeService(
                reactor=node.reactor,
                host=manhole.listen.host,
                port=manhole.listen.port,
                user=manhole.user,
                authorized_keys=manhole.authorized_keys,
                password_file=manhole.password_file,
                state_dir=config.array.state_dir,
                view=view,
            )
        )
    return services
