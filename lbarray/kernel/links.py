"""Network interfaces by name: index, MAC address, MTU, carrier."""

from __future__ import annotations

from pathlib import Path

import attrs

from lbarray.errors import SystemRefused

__all__ = ["Link", "link"]

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
