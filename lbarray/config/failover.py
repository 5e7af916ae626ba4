"""``[failover]``: who owns the virtual addresses, and when it gives them up (VRRP version 3, RFC 9568)."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, IpAddress, Name, Seconds, Text, between, one_of

__all__ = ["Failover", "Router", "Script"]


@attrs.frozen
class Router:
    """``[failover.routers.NAME]``: VIPs that move together, apart from the others.

    What is left out is as in ``[failover]``. VIPs of ``array.vips`` that no router names form one more, with
    ``failover.virtual_router_id`` and the nodes' own priorities.

    :ivar vips: some of ``array.vips``. IPv4 and IPv6 ones are elected apart, under the same number.
    :ivar virtual_router_id: its number (VRID), its own for each address family in the segment.
    :ivar priorities: by node, where they are not the node's own: so the VIPs spread over the nodes.
    """

    vips: tuple[IpAddress, ...]
    virtual_router_id: Annotated[int, between(1, 255)]
    priorities: dict[Name, Annotated[int, between(1, 255)]] = attrs.field(factory=dict)
    interval: Seconds | None = None
    preempt: Flag | None = None
    preempt_delay: Seconds | None = None
    accept: Flag | None = None
    virtual_mac: Flag | None = None


@attrs.frozen
class Script:
    """``[failover.scripts.NAME]``: a program whose failure counts against this node.

    :ivar command: the program, by its full path, and its arguments; exit code 0 is good. No shell is involved.
    :ivar interval: how often it runs; :ivar timeout: after this it is killed, and has failed.
    :ivar fall: failures in a row that count; :ivar rise: successes in a row that end it.
    :ivar weight: how much it lowers the node's priority; without it the node gives its VIPs up and takes none.
    """

    command: tuple[Text, ...]
    interval: Seconds = 2.0
    timeout: Seconds = 2.0
    fall: Annotated[int, between(1, 100)] = 2
    rise: Annotated[int, between(1, 100)] = 1
    weight: Annotated[int, between(1, 253)] | None = None


@attrs.frozen
class Failover:
    """``[failover]``: VRRP version 3 (RFC 9568), or BGP by a routing daemon.

    :ivar mode: ``vrrp``: one node owns each VIP in the segment. ``bgp``: every node that can serve announces all VIPs
        to the routers around, and several serve them at once; see ``[bgp]``. The other keys are not used then.
    :ivar virtual_router_id: the number (VRID) of the router of all VIPs that ``routers`` does not name.
    :ivar spread: each of those VIPs is a router of its own, numbered from ``virtual_router_id``, and each prefers
        another node: the first VIP the first node, and so on. The nodes' own priorities are not used for them.
    :ivar interval: advertisement interval in seconds, 0.01 to 40.95; a dead owner is replaced in
        between 3 and 4 of them.
    :ivar preempt: a node of higher priority takes the VIPs back when it returns.
    :ivar preempt_delay: but only after an owner of lower priority was heard for so long.
    :ivar unicast: advertise to each node's address instead of the multicast group.
    :ivar unicast_min_ttl: the lowest TTL (hop limit) of an advertisement that is heard. Below 255 they may have been
        routed, so keep ``authentication`` on.
    :ivar authentication: ``hmac`` signs advertisements with the array's key and hears no others; ``none`` where
        keepalived or another router is in the group, which knows nothing of it.
    :ivar accept: the owner answers packets for a VIP that belong to no service (ping, SSH). Without it they are
        dropped (RFC 9568 §6.1, Accept_Mode).
    :ivar virtual_mac: the owner holds the VIPs on an interface of its own with the router's MAC address
        00:00:5e:00:01:VRID (00:00:5e:00:02:VRID for IPv6), so that neighbours have nothing to learn at a takeover.
    :ivar detect_duplicates: ask the segment, at the start, whether a stranger has a VIP, and report one whenever it
        speaks up (RFC 5227).
    :ivar refresh: how often the owner announces its VIPs though nothing has happened.
    :ivar no_worker_weight: how much a node lowers its priority while it knows of no worker that accepts.
    """

    mode: Annotated[str, one_of("vrrp", "bgp")] = "vrrp"
    virtual_router_id: Annotated[int, between(1, 255)] = 51
    spread: Flag = False
    interval: Seconds = 1.0
    preempt: Flag = True
    preempt_delay: Seconds | None = None
    unicast: Flag = False
    unicast_min_ttl: Annotated[int, between(1, 255)] = 255
    authentication: Annotated[str, one_of("hmac", "none")] = "hmac"
    accept: Flag = True
    virtual_mac: Flag = False
    detect_duplicates: Flag = True
    refresh: Seconds = 60.0
    no_worker_weight: Annotated[int, between(0, 253)] = 50
    routers: dict[Name, Router] = attrs.field(factory=dict)
    scripts: dict[Name, Script] = attrs.field(factory=dict)
