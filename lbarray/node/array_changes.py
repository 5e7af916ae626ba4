"""How the parts that make machines into an array take up another configuration while they run."""

from __future__ import annotations

import typing

from lbarray.config.model import Config
from lbarray.config.routers import virtual_routers
from lbarray.failover.tracking import Condition
from lbarray.kernel.addresses import hold_on_loopback, let_go_on_loopback
from lbarray.node.array_parts import probing, sharing_of_load
from lbarray.values import Address

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["follow_array", "gone_vips", "hold_new_vips", "let_go_of_vips"]


def gone_vips(old: Config, new: Config) -> list[Address]:
    """The VIPs of ``old`` that ``new`` has not."""
    left = {vip.ip for vip in new.array.vips}
    return [vip.ip for vip in old.array.vips if vip.ip not in left]


def hold_new_vips(node: NodeService, old: Config, new: Config) -> None:
    """A worker has a VIP before it listens there, and before anybody sends it a client.

    :raises SystemRefused: the kernel would not.
    """
    added = gone_vips(new, old)
    if added and node.worker is not None and node.journal is not None:
        hold_on_loopback(added, node.interface, node.journal)


def let_go_of_vips(node: NodeService) -> None:
    """The last clients of VIPs that are gone have had their time.

    :raises SystemRefused: the kernel would not.
    """
    if node.journal is not None:
        let_go_on_loopback({vip.ip for vip in node.config.array.vips}, node.journal)


def follow_array(node: NodeService, old: Config, new: Config) -> None:
    """Heartbeats, probes, shares, and last the VIPs.

    :raises SystemRefused: the kernel would not.
    """
    if node.membership is not None and new.membership != old.membership:
        node.membership.reconfigure(interval_s=new.membership.interval, lost_after=new.membership.lost_after)
    if node.prober is not None:
        node.prober.reconfigure(**probing(new))
    if node.feedback is not None:
        node.feedback.reconfigure(**sharing_of_load(new))
    vips = [vip.ip for vip in new.array.vips]
    if node.routes is not None and new.array.vips != old.array.vips:
        node.routes.reconfigure(vips)
        node.own(frozenset(vips))
    if node.failover is None:
        return
    if new.failover.no_worker_weight != old.failover.no_worker_weight:
        node.failover.report(Condition("workers", old.failover.no_worker_weight), True)
        node.judge_workers(new.failover.no_worker_weight)
    node.failover.reconfigure(
        routers=virtual_routers(new.array, new.failover),
        services=[new.service_id(name) for name in new.services],
        scripts=new.failover.scripts,
        refresh_s=new.failover.refresh,
    )
