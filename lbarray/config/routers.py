"""From ``[failover]`` to virtual routers: each VIP in one of them, each of one address family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface

import attrs

from lbarray.config.array import Array
from lbarray.config.failover import Failover, Router
from lbarray.errors import Problem
from lbarray.values import Address

__all__ = ["VirtualRouter", "link_local_of", "virtual_routers", "wrong_routers"]

Vip = IPv4Interface | IPv6Interface


@attrs.frozen
class VirtualRouter:
    """VIPs of one address family that move together (RFC 9568 §1.4).

    :ivar vips: with their prefix lengths; for IPv6 a link-local address comes first (§5.2.9).
    :ivar priorities: by node, 1 to 255.
    :ivar interval_s: advertisement interval in seconds.
    """

    name: str
    router_id: int
    vips: tuple[Vip, ...]
    priorities: Mapping[str, int]
    interval_s: float
    preempt: bool
    preempt_delay_s: float
    accept: bool
    virtual_mac: bool

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.vips[0].version


def link_local_of(router_id: int) -> IPv6Interface:
    """The link-local address of an IPv6 virtual router that was given none, from its virtual MAC address."""
    return IPv6Interface((IPv6Address(f"fe80::200:5eff:fe00:2{router_id:02x}"), 64))


def virtual_routers(array: Array, failover: Failover) -> tuple[VirtualRouter, ...]:
    """The routers that a configuration means, those it names first."""
    by_address = {vip.ip: vip for vip in array.vips}
    made: list[VirtualRouter] = []
    taken: set[Address] = set()
    for name, router in failover.routers.items():
        taken.update(router.vips)
        vips = [by_address[vip] for vip in router.vips if vip in by_address]
        made += _by_family(name, vips, router, array, failover)
    rest = [vip for vip in array.vips if vip.ip not in taken]
    if failover.spread:
        nodes = list(array.nodes)
        for place, vip in enumerate(rest):
            # 150 for the node that the VIP prefers, then downwards in the order of the file, round and round.
            step = max(1, 100 // max(1, len(nodes)))
            turned = nodes[place % len(nodes) :] + nodes[: place % len(nodes)] if nodes else []
            own = Router(
                vips=(vip.ip,),
                virtual_router_id=min(255, failover.virtual_router_id + place),
                priorities={node: 150 - step * rank for rank, node in enumerate(turned)},
            )
            made += _by_family(str(vip.ip), [vip], own, array, failover)
    elif rest:
        own = Router(vips=(), virtual_router_id=failover.virtual_router_id)
        made += _by_family("main", rest, own, array, failover)
    return tuple(made)


def _by_family(
    name: str, vips: Iterable[Vip], router: Router, array: Array, failover: Failover
) -> Iterator[VirtualRouter]:
    vips = tuple(vips)
    families = [tuple(vip for vip in vips if vip.version == version) for version in (4, 6)]
    for family in families:
        if not family:
            continue
        given_none = family[0].version == 6 and not any(vip.ip.is_link_local for vip in family)
        first = (link_local_of(router.virtual_router_id),) if given_none else ()
        yield VirtualRouter(
            name=f"{name}6" if family[0].version == 6 and all(families) else name,
            router_id=router.virtual_router_id,
            vips=tuple(sorted((*first, *family), key=lambda vip: not vip.ip.is_link_local)),
            priorities={node: router.priorities.get(node, own.priority) for node, own in array.nodes.items()},
            interval_s=failover.interval if router.interval is None else router.interval,
            preempt=failover.preempt if router.preempt is None else router.preempt,
            preempt_delay_s=(failover.preempt_delay if router.preempt_delay is None else router.preempt_delay) or 0.0,
            accept=failover.accept if router.accept is None else router.accept,
            virtual_mac=failover.virtual_mac if router.virtual_mac is None else router.virtual_mac,
        )


def wrong_routers(array: Array, failover: Failover) -> Iterator[Problem]:
    """Every contradiction in ``[failover]``."""
    yield from _intervals(failover)
    known = {vip.ip for vip in array.vips}
    offered = ", ".join(f'"{vip.ip}"' for vip in array.vips) or "none"
    holder: dict[object, str] = {}
    for name, router in failover.routers.items():
        key = f"failover.routers.{name}"
        if not router.vips:
            yield Problem(f"{key}.vips", "an empty list", f"some of array.vips: {offered}")
        for vip in router.vips:
            if vip not in known:
                yield Problem(f"{key}.vips", f'"{vip}"', f"some of array.vips: {offered}")
            other = holder.setdefault(vip, name)
            if other != name:
                yield Problem(
                    f"{key}.vips", f'"{vip}", which is in failover.routers.{other} too', "a VIP in one router"
                )
        for node in router.priorities:
            if node not in array.nodes:
                yield Problem(f"{key}.priorities", f'"{node}"', f"names of array.nodes: {', '.join(array.nodes)}")
    yield from _numbers(array, failover)
    for name, script in failover.scripts.items():
        if not script.command or not script.command[0].startswith("/"):
            found = f'"{script.command[0]}"' if script.command else "an empty list"
            yield Problem(f"failover.scripts.{name}.command", found, "a program's full path, then its arguments")


def _intervals(failover: Failover) -> Iterator[Problem]:
    asked = {"failover.interval": failover.interval}
    asked |= {f"failover.routers.{name}.interval": each.interval or 1.0 for name, each in failover.routers.items()}
    for key, interval in asked.items():
        if not 0.01 <= interval <= 40.95:
            yield Problem(key, f"{interval:g} s", "0.01 to 40.95 seconds (RFC 9568 §5.2.7)")


def _numbers(array: Array, failover: Failover) -> Iterator[Problem]:
    if failover.spread and failover.virtual_router_id + len(array.vips) > 256:
        yield Problem(
            "failover.virtual_router_id",
            f"{failover.virtual_router_id} with spread and {len(array.vips)} VIPs",
            "a number that leaves one up to 255 for each VIP",
        )
        return
    seen: dict[tuple[int, int], str] = {}
    for made in virtual_routers(array, failover):
        key = f"failover.routers.{made.name}" if made.name in failover.routers else "failover"
        other = seen.setdefault((made.version, made.router_id), made.name)
        if other != made.name:
            yield Problem(
                f"{key}.virtual_router_id",
                f"{made.router_id}, which router {other} has too",
                "a number of its own, 1 to 255",
            )
        firsts = [node for node, priority in made.priorities.items() if priority == 255]
        if len(firsts) > 1:
            yield Problem(
                f"{key}.priorities" if key != "failover" else "array.nodes",
                f"priority 255 for {' and '.join(firsts)}",
                "255 for one node at most: it takes the VIPs without asking",
            )
