"""The sections that make machines into one array: ``[array]`` and ``[membership]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs

from lbarray.config.scalars import Interface, IpAddress, Name, PathText, Port, Seconds, Text, between, one_of

__all__ = ["Array", "Membership", "Node"]


@attrs.frozen
class Node:
    """``[array.nodes.NAME]``: one machine.

    :ivar address: its own address in the array's segment, present on ``interface``.
    :ivar address6: its IPv6 address, only for ``failover.unicast`` with IPv6 VIPs.
    :ivar interface: where it meets the array; ``array.interface`` unless given.
    :ivar priority: VRRP priority, 1 to 255; the highest that lives owns the VIPs. 255 takes them without waiting
        and always takes them back; one node at most may have it.
    :ivar weight: its share of the connections, against the other nodes' weights.
    :ivar tunnel: how packets are put into others on their way to it where a router lies between: ``gue`` (UDP, which
        networks spread over their links) or ``ipip`` (16 octets less).
    """

    address: IpAddress
    address6: IpAddress | None = None
    interface: Text | None = None
    priority: Annotated[int, between(1, 255)] = 100
    weight: Annotated[int, between(1, 1000)] = 100
    tunnel: Annotated[str, one_of("gue", "ipip")] = "gue"


@attrs.frozen
class Array:
    """``[array]``: who belongs to it and which addresses it offers.

    :ivar key_file: the shared secret, the same octets on every node, readable by its owner only.
    :ivar accepted_key_files: other secrets whose signatures are accepted, while ``key_file`` is being replaced: first
        every node accepts the new one, then every node signs with it, then the old one goes.
    :ivar nodes: none at all means standalone: one node, no VIP.
    :ivar state_dir: where a node keeps what must outlive it (journal, host keys).
    """

    name: Name = "lbarray"
    key_file: PathText | None = None
    accepted_key_files: tuple[PathText, ...] = ()
    interface: Text = "eth0"
    vips: tuple[Interface, ...] = ()
    nodes: dict[Name, Node] = attrs.field(factory=dict)
    state_dir: PathText = Path("/var/lib/lbarray")


@attrs.frozen
class Membership:
    """``[membership]``: heartbeats over UDP.

    :ivar lost_after: a node that is silent for this many intervals is out.
    """

    port: Port = 4780
    interval: Seconds = 0.5
    lost_after: Annotated[int, between(2, 100)] = 4
