"""What moves the VIPs between the nodes."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from ipaddress import ip_address

from lbarray.console.actions import Action, Argument, BadArgument

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["actions"]


def actions(node: NodeService) -> Iterator[Action]:
    """Handing VIPs over, asked on any node."""
    handovers = node.handovers
    if handovers is None:
        return

    def handover(to: str | None, vip: str | None) -> object:
        try:
            address = None if vip is None else ip_address(vip)
        except ValueError:
            raise BadArgument(f"vip: found {vip!r}; accepted: an IP address") from None
        return handovers.request(address, to)

    yield Action(
        name="handover",
        summary="Move the VIPs to another node; no client notices.",
        arguments=(
            Argument("to", "the node that shall have them; without it whoever is next in line", required=False),
            Argument("vip", "only the virtual router of this address", required=False),
        ),
        run=handover,
    )
