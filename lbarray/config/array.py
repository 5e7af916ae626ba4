"""The sections that make machines into one array: ``[array]``, ``[failover]``, ``[membership]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, Interface, IpAddress, Name, PathText, Port, Seconds, Text, between

__all__ = ["Array", "Failover", "Membership", "Node"]


@attrs.frozen
class Node:
    """``[array.nodes.NAME]``: one machine.

    :ivar address: its own address in the array's segment, present on ``interface``.
    :ivar interface: where it meets the array; ``array.interface`` unless given.
    :ivar priority: VRRP priority, 1 to 254; the highest that lives owns the VIPs.
    :ivar weight: its share of the connections, against the other nodes' weights.
    """

    address: IpAddress
    interface: Text | None = None
    priority: Annotated[int, between(1, 254)] = 100
    weight: Annotated[int, between(1, 1000)] = 100


@attrs.frozen
class Array:
    """``[array]``: who belongs to it and which addresses it offers.

    :ivar key_file: the shared secret, the same octets on every node, readable by its owner only.
    :ivar nodes: none at all means standalone: one node, no VIP.
    :ivar state_dir: where a node keeps what must outlive it (journal, host keys).
    """

    name: Name = "lbarray"
    key_file: PathText | None = None
    interface: Text = "eth0"
    vips: tuple[Interface, ...] = ()
    nodes: dict[Name, Node] = attrs.field(factory=dict)
    state_dir: PathText = Path("/var/lib/lbarray")


@attrs.frozen
class Failover:
    """``[failover]``: VRRP version 3 (RFC 9568).

    :ivar interval: advertisement interval in seconds, 0.01 to 40.95; a dead owner is replaced in
        between 3 and 4 of them.
    :ivar preempt: a node of higher priority takes the VIPs back when it returns.
    :ivar preempt_delay: but only after an owner of lower priority was heard for so long.
    :ivar unicast: advertise to each node's address instead of the multicast group.
    """

    virtual_router_id: Annotated[int, between(1, 255)] = 51
    interval: Seconds = 1.0
    preempt: Flag = True
    preempt_delay: Seconds | None = None
    unicast: Flag = False


@attrs.frozen
class Membership:
    """``[membership]``: heartbeats over UDP.

    :ivar lost_after: a node that is silent for this many intervals is out.
    """

    port: Port = 4780
    interval: Seconds = 0.5
    lost_after: Annotated[int, between(2, 100)] = 4
