"""What operators see of a node, and the services that show it."""

from __future__ import annotations

import typing
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from twisted.application.service import Service

from lbarray.console.api import StatusService
from lbarray.console.manhole import ManholeService
from lbarray.console.view import NodeView

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["make_console", "node_view"]


def _version() -> str:
    try:
        return version("lbarray")
    except PackageNotFoundError:
        return "unknown"


def node_view(node: NodeService) -> NodeView:
    """Everything that can be asked of a node, and everything that can be done to it."""
    parts: dict[str, Callable[[], object]] = {}
    for key, part in (
        ("failover", node.failover),
        ("scheduler", node.scheduler),
        ("membership", node.membership),
        ("services", node.worker),
        ("pools", node.backends),
        ("rewriting", node.rewriting),
    ):
        if part is not None:
            parts[key] = part.status

    def drain_backend(pool: str, name: str, draining: bool) -> None:
        if node.backends is not None:
            node.backends.drain(pool, name, draining)

    return NodeView(
        node=node.node_name,
        array=node.config.array.name,
        version=_version(),
        uptime_s=node.uptime_s,
        counters=node.counters,
        parts=parts,
        drain=drain_backend,
        step_down=lambda: node.failover is not None and node.failover.step_down(),
        drain_node=node.drain,
    )


def make_console(node: NodeService, view: NodeView) -> tuple[StatusService, list[Service]]:
    """The status, which starts first and stops last, and what else an operator looks through."""
    config = node.config
    status = StatusService(
        reactor=node.reactor, host=config.console.status.host, port=config.console.status.port, view=view
    )
    manhole = config.console.manhole
    if manhole is None:
        return status, []
    inside = ManholeService(
        reactor=node.reactor,
        host=manhole.listen.host,
        port=manhole.listen.port,
        user=manhole.user,
        authorized_keys=manhole.authorized_keys,
        password_file=manhole.password_file,
        state_dir=config.array.state_dir,
        view=view,
    )
    return status, [inside]
