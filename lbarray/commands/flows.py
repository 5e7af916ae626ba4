"""Commands about packets and connections: where they go, which there are, and what they look like."""

from __future__ import annotations

import argparse
import sys
import typing
from contextlib import ExitStack
from pathlib import Path

from lbarray.commands.registry import Commands, connect, show

if typing.TYPE_CHECKING:
    from lbarray.scheduler.tap import XdpTap

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``where``, ``flows`` and ``capture``."""
    command = commands.add_remote("where", where)
    command.add_argument("client", metavar="ADDRESS", help="the client's IP address, such as 203.0.113.9")
    command.add_argument("--port", type=int, help="its port, for services hashed by connection")

    command = commands.add_remote("flows", flows)
    command.add_argument("--client", metavar="ADDRESS", help="only of this client")
    command.add_argument("--worker", metavar="NODE", help="only those of this worker")
    command.add_argument("--held", action="store_true", help="those that this node's own kernel holds, as a worker")
    command.add_argument("--limit", type=int, default=100, metavar="N", help="how many at most (%(default)s)")

    command = commands.add("capture", capture)
    command.add_argument("file", type=Path, metavar="CONFIG", help="the array's configuration: for VIPs and interface")
    command.add_argument("out", type=Path, metavar="PCAP", help="the file to write, for tcpdump -r and Wireshark")
    command.add_argument("--node", metavar="NAME", help="which node of the configuration this machine is")
    command.add_argument("--sample", type=int, default=1, metavar="N", help="one packet of N, chosen by the kernel")
    command.add_argument("--seconds", type=float, default=10.0, metavar="S", help="for so long (%(default)s)")
    command.add_argument("--packets", type=int, default=10_000, metavar="N", help="at most (%(default)s)")
    command.add_argument("--octets", type=int, default=128, metavar="N", help="of each packet (%(default)s)")


def where(arguments: argparse.Namespace) -> int:
    """The row of the table that a client's address maps to, and the worker that has it."""
    return show(arguments, connect(arguments).ask("where", client=arguments.client, port=arguments.port))


def flows(arguments: argparse.Namespace) -> int:
    """Connections: those that the scheduler's plane remembers, or with --held those of this node's kernel."""
    node = connect(arguments)
    if arguments.held:
        return show(arguments, node.ask("held", limit=arguments.limit))
    asked = node.ask("flows", client=arguments.client, worker=arguments.worker, limit=arguments.limit)
    return show(arguments, asked)


def capture(arguments: argparse.Namespace) -> int:
    """Write a sample of the packets to and from the VIPs on this machine's interface to a pcap file; needs root.

    Bounded in time, number and size. What lbarray's XDP plane forwards or drops never reaches the kernel's taps: it is
    captured behind the packet program, as it leaves.
    """
    from lbarray.config.load import load
    from lbarray.kernel.capture import Bounds, capture_packets
    from lbarray.node import node_name

    config = load(arguments.file)
    name = node_name(config, arguments.node, str(arguments.file))
    interface = config.interface_of(config.array.nodes[name]) if not config.standalone else config.array.interface
    vips = {config.service_id(service).address for service in config.services}
    bounds = Bounds(
        sample=arguments.sample, seconds=arguments.seconds, packets=arguments.packets, octets=arguments.octets
    )
    with ExitStack() as open_:
        beyond = _behind_xdp(interface, bounds.sample)
        if beyond is not None:
            open_.callback(beyond.close)
        written, missed = capture_packets(interface, vips, arguments.out, bounds, beyond)
    lost = f"; the kernel dropped {missed} more because we were too slow: use --sample" if missed else ""
    print(f"{written} packets of {interface} in {arguments.out}{lost}")
    return 0


def _behind_xdp(interface: str, sample: int) -> XdpTap | None:
    """What shows the packets that an XDP program on this interface keeps from the kernel's taps."""
    from lbarray.errors import SystemRefused
    from lbarray.kernel.attachments import xdp_on
    from lbarray.scheduler.tap import XdpTap

    if not xdp_on(interface):
        return None
    try:
        return XdpTap(interface, sample)
    except SystemRefused as error:
        print(
            f"an XDP program on {interface} sees packets before this capture: those that it forwards or drops are not "
            f"in it ({error}). Capture them on the workers",
            file=sys.stderr,
        )
        return None
