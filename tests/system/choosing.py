"""What ``plane = "auto"`` takes for an interface: ``python -m tests.system.choosing INTERFACE PLANE``, as JSON.

An interface ``tap0`` is made here: its driver takes XDP programs, and this process is the wire behind it. A client's
SYN is then sent in by it, and what comes back is told too.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent

from lbarray.config.load import parse
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import link
from lbarray.node.plane import make_plane
from lbarray.scheduler.abi import NOBODY, ROW
from lbarray.scheduler.bpf_plane import undoers
from lbarray.values import PlaneService, ServiceId, WorkerTarget
from tests.bpf.frames import ROUTER, SYN, VIP, ethernet, ipv4, tcp

TEXT = """
[array]
interface = "{interface}"
key_file = "{folder}/key"
vips = ["192.0.2.100/24"]
[array.nodes.a]
address = "192.0.2.1"
[array.nodes.b]
address = "192.0.2.2"
[scheduler]
plane = "{plane}"
table_size = 251
[services.http]
vip = "192.0.2.100"
port = 80
[pools.web.backends]
w1 = {{ address = "192.0.2.9:8001" }}
"""
PEER = b"\2\0\0\0\0\2"


def tap() -> int:
    """A new interface ``tap0``; what is written to it comes in there."""
    wire = os.open("/dev/net/tun", os.O_RDWR)
    tap_without_information = 0x1002
    fcntl.ioctl(wire, 0x400454CA, struct.pack("16sH14x", b"tap0", tap_without_information))  # TUNSETIFF
    subprocess.run(["ip", "link", "set", "tap0", "up"], check=True)
    return wire


def through(wire: int, frame: bytes, wanted: bytes) -> str:
    """Send a frame in; the frame to ``wanted`` that comes back, in hexadecimal digits, or nothing."""
    os.write(wire, frame)
    until = time.monotonic() + 5
    while select.select([wire], [], [], max(0.0, until - time.monotonic()))[0]:
        came = os.read(wire, 2048)
        if came[:6] == wanted:
            return came.hex()
    return ""


def main(interface: str, plane: str) -> None:
    wire = tap() if interface == "tap0" else -1
    with tempfile.TemporaryDirectory() as name, capturedLogs() as said:
        folder = Path(name)
        (folder / "key").write_bytes(b"0123456789abcdef0123456789abcdef")
        config = parse(TEXT.format(interface=interface, folder=folder, plane=plane))
        journal = Journal(folder / "journal", undoers())
        chosen = make_plane(
            reactor=MemoryReactorClock(), config=config, node_name="a", secret=bytes(range(32)), journal=journal
        )
        chosen.attach()
        came = ""
        try:
            own = link(interface).mac
            chosen.set_services([PlaneService(ServiceId(VIP, 80))])
            chosen.set_workers(
                [
                    WorkerTarget(0, "a", ip_address("192.0.2.1"), own, local=True),
                    WorkerTarget(1, "b", ip_address("192.0.2.2"), PEER),
                ]
            )
            chosen.set_active([VIP])
            chosen.apply(ROW.pack(1, NOBODY, NOBODY, NOBODY) * 251)
            if wire >= 0:
                came = through(wire, ethernet(ipv4(tcp(flags=SYN, payload=b"")), to=own, source=ROUTER), PEER)
        finally:
            told = {"plane": chosen.name, "said": [formatEvent(event) for event in said], "came": came}
            chosen.detach()
        print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
