"""Network interfaces by name: index, MAC address, MTU, carrier."""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from pathlib import Path

import attrs
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused

__all__ = ["Link", "driver_of", "link"]

SYS_NET = Path("/sys/class/net")


@attrs.frozen
class Link:
    """An interface as it is now. ``mac`` is six octets, all zero where there is none."""

    name: str
    index: int
    mac: bytes
    mtu: int
    carrier: bool


def link(name: str, root: Path = SYS_NET) -> Link:
    """The interface of this name.

    :raises SystemRefused: there is none; the message names those that are.
    """
    folder = root / name
    try:
        index = int((folder / "ifindex").read_text())
        mac = bytes.fromhex((folder / "address").read_text().strip().replace(":", ""))
        mtu = int((folder / "mtu").read_text())
    except (OSError, ValueError) as error:
        known = ", ".join(sorted(path.name for path in root.iterdir())) if root.is_dir() else "none"
        raise SystemRefused(
            f"use the interface {name}",
            errno=getattr(error, "errno", 0) or 0,
            detail="this machine has no such interface",
            advice=f"it has: {known}; set array.interface or array.nodes.NAME.interface",
        ) from None
    try:
        carrier = (folder / "carrier").read_text().strip() == "1"
    except OSError:  # reading the carrier of an interface that is down is refused
        carrier = False
    return Link(name, index, mac, mtu, carrier)


def driver_of(name: str) -> str:
    """The driver of an interface as ``ethtool -i`` names it; empty where it has none, or is not there."""
    info = array.array("B", struct.pack("=I", 0x00000003) + bytes(192))  # ETHTOOL_GDRVINFO, struct ethtool_drvinfo
    request = struct.pack("16sP", name.encode()[:15], info.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, 0x8946, request)  # SIOCETHTOOL
        except OSError:
            return ""
    return info.tobytes()[4:36].rstrip(b"\0").decode(errors="replace")


def remove_interface(name: str) -> None:
    """Remove an interface that was made here, with its addresses; nothing happens when there is none.

    :raises SystemRefused: the kernel would not.
    """
    try:
        index = link(name).index
    except SystemRefused:
        return
    with IPRoute() as netlink:
        try:
            netlink.link("del", index=index)
        except NetlinkError as error:
            if int(error.code) != errno.ENODEV:
                raise SystemRefused(
                    f"remove the interface {name}", errno=int(error.code), advice="run the node as root (CAP_NET_ADMIN)"
                ) from None
