"""Which packet planes a node may use, in the order in which it tries them."""

from __future__ import annotations

import hashlib
from typing import Any

from lbarray.bpf.build import object_path
from lbarray.config.model import Config
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import driver_of
from lbarray.scheduler.auto_plane import AutoPlane, Candidate
from lbarray.scheduler.bpf_plane import BpfPlane
from lbarray.scheduler.packet_plane import PacketPlane

__all__ = ["flow_secret", "make_plane"]

#: Drivers whose XDP accepts a program and then loses what it sends back, with the reason.
_UNFIT_FOR_XDP = {
    "veth": "veth loses the frames that XDP sends back unless its other end runs NAPI too",
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
            journal=journal,
            object_path=object_path,
        )

    def packets(reactor: Any) -> PacketPlane:
        return PacketPlane(
            reactor=reactor,
            interface=interface,
            table_size=config.scheduler.table_size,
            secret=flow_secret(secret),
            self_index=list(config.array.nodes).index(node_name),
            journal=journal,
        )

    wanted = config.scheduler.plane
    candidates = [
        Candidate("xdp", lambda: bpf("xdp"), unfit=_UNFIT_FOR_XDP.get(driver_of(interface), "")),
        Candidate("tc", lambda: bpf("tc")),
        Candidate("xdp-generic", lambda: bpf("xdp-generic")),
        Candidate("packet", lambda: packets(reactor)),
    ]
    if wanted != "auto":
        # Who names a plane has a reason, and knows the driver.
        candidates = [Candidate(each.name, each.make) for each in candidates if each.name == wanted]
    return AutoPlane(candidates)
