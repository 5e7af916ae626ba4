"""An interface with a MAC address of its own on top of another one (macvlan): what a virtual router's is held by."""

from __future__ import annotations

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused
from lbarray.kernel.links import link, remove_interface
from lbarray.kernel.sysctls import write_sysctl

__all__ = ["add_macvlan"]

_ADVICE = "run the node as root (CAP_NET_ADMIN), on a kernel with the macvlan module"


def add_macvlan(name: str, parent: str, mac: bytes) -> None:
    """Make the interface ``name`` with the address ``mac`` on ``parent`` and bring it up; an old one of that name goes.

    It has no addresses, and gives itself none.

    :raises SystemRefused: the kernel would not.
    """
    remove_interface(name)
    below = link(parent).index
    with IPRoute() as netlink:
        try:
            netlink.link(
                "add",
                ifname=name,
                kind="macvlan",
                link=below,
                address=mac.hex(":"),
                # Not "private": that takes a frame whose sender has our virtual address, another owner's
                # advertisement, for one of our own and keeps it from the parent.
                macvlan_mode="bridge",
            )
            # Answers leave by the parent, which is where routes lead, so a strict path check would drop the requests.
            write_sysctl(f"net.ipv4.conf.{name}.rp_filter", "2")
            _no_own_addresses(name)
            netlink.link("set", index=link(name).index, state="up")
        except NetlinkError as error:
            raise SystemRefused(
                f"make the interface {name} on {parent}", errno=int(error.code), advice=_ADVICE
            ) from None


def _no_own_addresses(name: str) -> None:
    for parameter, value in (("addr_gen_mode", "1"), ("accept_ra", "0"), ("autoconf", "0")):
        try:
            write_sysctl(f"net.ipv6.conf.{name}.{parameter}", value)
        except SystemRefused as error:
            if error.errno != errno.ENOENT:  # a kernel without IPv6 has none to give
                raise
