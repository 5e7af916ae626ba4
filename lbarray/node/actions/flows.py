"""Questions about packets: where a client's go, and which connections there are."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from ipaddress import ip_address

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from lbarray.console.actions import Action, Argument, BadArgument
from lbarray.console.tables import table
from lbarray.kernel.listening import HeldConnection, held_connections
from lbarray.node.plane import flow_secret
from lbarray.scheduler.where import Place, places
from lbarray.values import Address

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]

#: More than this nobody reads, and the kernel is asked for each.
MOST = 5000


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise BadArgument(f"client: found {text[:80]!r}; accepted: an IP address, such as 203.0.113.9") from None


def _said(place: Place) -> list[object]:
    if place.row is None:
        likely = ", ".join(f"{name} {share:.0%}" for name, share in place.shares.items())
        return [str(place.service), "connection", "by its port", likely, ""]
    by = place.hash_by.name.lower()
    worker = f"{place.worker}, or {place.alternative} if less loaded" if place.alternative else place.worker
    return [str(place.service), by, place.row, worker, ", ".join(place.before)]


def actions(node: NodeService) -> Iterator[Action]:
    """``where``, ``flows`` and ``held``."""
    scheduler = node.scheduler
    if scheduler is not None:
        nodes = list(node.config.array.nodes)
        names = dict(enumerate(nodes))

        def where(client: str, port: int | None) -> dict[str, object]:
            found = places(
                _address(client),
                port,
                services=scheduler.services,
                table=scheduler.table,
                names=names,
                secret=flow_secret(node.secret),
            )
            rows = [_said(place) for place in found]
            return {
                "client": client,
                "services": [
                    {**attrs.asdict(place), "service": str(place.service), "hash_by": place.hash_by.name.lower()}
                    for place in found
                ],
                "said": table(["service", "hashed by", "row", "worker", "had it before"], rows)
                if rows
                else f"no service has a VIP of the address family of {client}",
            }

        yield Action(
            name="where",
            summary="The row that a client's address maps to, and the worker that has it.",
            arguments=(
                Argument("client", "its IP address"),
                Argument("port", "its port, for services hashed by connection", kind="integer", required=False),
            ),
            run=where,
            changes=False,
        )

        def flows(client: str | None, worker: str | None, limit: int) -> dict[str, object]:
            wanted = _address(client) if client else None
            found = [
                flow
                for flow in scheduler.flows(MOST if client or worker else min(limit, MOST))
                if (wanted is None or flow.client == wanted) and (worker is None or names.get(flow.worker) == worker)
            ][: max(0, limit)]
            rows = [
                [f"{flow.client}", flow.port, str(flow.service), names.get(flow.worker, str(flow.worker))]
                for flow in found
            ]
            return {
                "flows": [{"client": str(row[0]), "port": row[1], "service": row[2], "worker": row[3]} for row in rows],
                "said": table(["client", "port", "service", "worker"], rows)
                if rows
                else "this node's plane remembers no such connection (is it the scheduler? lbarray status)",
            }

        yield Action(
            name="flows",
            summary="Connections that this scheduler's plane remembers, with their workers.",
            arguments=(
                Argument("client", "only of this address", required=False),
                Argument("worker", "only of this node", required=False),
                Argument("limit", "how many at most", kind="integer", required=False, default=100),
            ),
            run=flows,
            changes=False,
        )

    if node.worker is not None:

        def held(limit: int) -> Deferred[dict[str, object]]:
            ports = {service.port for service in node.config.services.values()}
            pool = node.reactor.getThreadPool()
            asked = deferToThreadPool(node.reactor, pool, held_connections, ports, min(max(0, limit), MOST))
            return asked.addCallback(listed)

        def listed(found: list[HeldConnection]) -> dict[str, object]:
            rows = [[str(each.client), each.port, f"{each.to}:{each.to_port}", each.state] for each in found]
            return {
                "connections": [{"client": str(row[0]), "port": row[1], "to": row[2], "state": row[3]} for row in rows],
                "said": table(["client", "port", "to", "state"], rows) if rows else "this node holds no connection",
            }

        yield Action(
            name="held",
            summary="Clients' connections that this node's kernel holds, with their TCP state.",
            arguments=(Argument("limit", "how many at most", kind="integer", required=False, default=100),),
            run=held,
            changes=False,
        )
