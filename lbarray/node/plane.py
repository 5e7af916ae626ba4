"""Which packet planes a node may use, in the order in which it tries them."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs

from lbarray.bpf.build import object_path
from lbarray.config.model import Config
from lbarray.errors import SystemRefused
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import driver_of
from lbarray.kernel.nexthop import next_hop
from lbarray.scheduler.auto_plane import AutoPlane, Candidate
from lbarray.scheduler.bpf_plane import BpfPlane
from lbarray.scheduler.packet_plane import PacketPlane

__all__ = ["flow_secret", "make_plane", "segments_through_tunnels"]

#: Drivers whose XDP accepts a program and then loses what it sends back, with the reason.
_UNFIT_FOR_XDP = {
    "veth": "veth loses the frames that XDP sends back unless its other end has an XDP program too",
}


def flow_secret(secret: bytes) -> bytes:
    """The key of the flow hash: the same on every node, and unknown to clients."""
    return hashlib.sha256(b"lbarray flows " + secret.strip()).digest()[:16]


def make_plane(*, reactor: Any, config: Config, node_name: str, secret: bytes, journal: Journal) -> AutoPlane:
    """The plane of ``scheduler.plane``, or with ``auto`` the first that attaches."""
    interface = config.interface_of(config.array.nodes[node_name])

    def bpf(mode: str) -> BpfPlane:
        return BpfPlane(
            interface=interface,
            mode=mode,
            table_size=config.scheduler.table_size,
            secret=flow_secret(secret),
            self_index=list(config.array.nodes).index(node_name),
            address=config.array.nodes[node_name].address,
            journal=journal,
            object_path=object_path,
            reactor=reactor,
        )

    def packets(reactor: Any) -> PacketPlane:
        return PacketPlane(
            reactor=reactor,
            interface=interface,
            table_size=config.scheduler.table_size,
            secret=flow_secret(secret),
            self_index=list(config.array.nodes).index(node_name),
            address=config.array.nodes[node_name].address,
            journal=journal,
        )

    wanted = config.scheduler.plane
    driver = driver_of(interface)
    candidates = [
        Candidate(
            "xdp",
            lambda: bpf("xdp"),
            unfit=_UNFIT_FOR_XDP.get(driver, ""),
            remark=f"in the driver of {interface}, {driver}",
        ),
        Candidate("tc", lambda: bpf("tc")),
        Candidate("xdp-generic", lambda: bpf("xdp-generic")),
        Candidate("packet", lambda: packets(reactor)),
    ]
    if wanted != "auto":
        # Who names a plane has a reason, and knows the driver.
        candidates = [attrs.evolve(each, unfit="") for each in candidates if each.name == wanted]
    return AutoPlane(candidates)


def segments_through_tunnels(config: Config, node_name: str) -> dict[int, int]:
    """Octets of a TCP segment that fit through the longest outer headers on the way to another node, by IP version.

    Nothing where no router lies between the nodes, or the ways are not known yet.
    """
    mtu = 0
    for name, node in config.array.nodes.items():
        if name != node_name:
            try:
                hop = next_hop(node.address)
            except SystemRefused:
                continue
            if not hop.direct:
                mtu = min(mtu or hop.mtu, hop.mtu)
    # Outer IPv6, UDP and GUE; then the inner IP header, and TCP's without options.
    return {4: mtu - 56 - 40, 6: mtu - 56 - 60} if mtu else {}
