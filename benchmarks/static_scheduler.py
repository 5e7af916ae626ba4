"""A scheduler with fixed workers, for measuring the plane alone: ``python -m benchmarks.static_scheduler JSON``.

The workers are anything that holds the VIP on its loopback interface; no heartbeat is asked of them.
"""

from __future__ import annotations

import json
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from lbarray.bpf.build import object_path
from lbarray.kernel.addresses import undoers as address_undoers
from lbarray.kernel.journal import Journal
from lbarray.scheduler import bpf_plane, packet_plane
from lbarray.scheduler.bpf_plane import BpfPlane
from lbarray.scheduler.packet_plane import PacketPlane
from lbarray.scheduler.reach import in_one_segment
from lbarray.scheduler.service import SchedulerService
from lbarray.scheduler.table import RowTable
from lbarray.telemetry.counters import Counters
from lbarray.testing import MemoryMembers
from lbarray.values import NodeReport, PlaneService, ServiceId


def main(argument: str) -> None:
    """Attach and forward until SIGTERM."""
    wanted = json.loads(argument)
    reports = [
        NodeReport(name=name, address=ip_address(address), mac=bytes.fromhex(mac.replace(":", "")), accepting=True)
        for name, (address, mac) in wanted["workers"].items()
    ]
    index = {report.name: place for place, report in enumerate(reports)}
    table = RowTable(index)
    undoers = {**address_undoers(), **bpf_plane.undoers(), **packet_plane.undoers()}
    common: dict[str, Any] = {
        "interface": "eth0",
        "table_size": table.size,
        "secret": bytes(range(16)),
        "self_index": len(index),
        "journal": Journal(Path(wanted["folder"]) / "journal.json", undoers),
    }
    plane: BpfPlane | PacketPlane
    if wanted["plane"] == "packet":
        plane = PacketPlane(reactor=reactor, **common)
    else:
        plane = BpfPlane(mode=wanted["plane"], object_path=object_path, **common)
    service = SchedulerService(
        clock=reactor,
        node_name="scheduler",
        plane=plane,
        members=MemoryMembers(*reports),
        index=index,
        services=[PlaneService(ServiceId(ip_address(wanted["vip"]), 80))],
        table=table,
        reach=in_one_segment("scheduler"),
        counters=Counters(),
    )
    service.startService()
    service.set_owned(frozenset({ip_address(wanted["vip"])}))
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
