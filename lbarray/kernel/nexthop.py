"""Where a packet for an address goes first: to its own machine, or to a router."""

from __future__ import annotations

import socket

import attrs
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused
from lbarray.values import Address

__all__ = ["NextHop", "next_hop"]


@attrs.frozen
class NextHop:
    """The first station of a way.

    :ivar direct: no router lies between.
    :ivar mac: six octets of the station, ``b""`` while the kernel has not resolved it.
    :ivar mtu: octets that a packet may have on its way out.
    """

    direct: bool
    mac: bytes
    mtu: int


def next_hop(address: Address) -> NextHop:
    """By the kernel's routes and neighbours, as they are now.

    :raises SystemRefused: there is no route.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with IPRoute() as netlink:
        try:
            (route, *_) = netlink.route("get", dst=str(address), family=family)
            gateway, out = route.get_attr("RTA_GATEWAY"), route.get_attr("RTA_OIF")
            mac = b""
            for neighbour in netlink.get_neighbours(ifindex=out, family=family):
                if neighbour.get_attr("NDA_DST") == (gateway or str(address)):
                    mac = bytes.fromhex((neighbour.get_attr("NDA_LLADDR") or "").replace(":", ""))
            (link, *_) = netlink.get_links(out)
        except NetlinkError as error:
            raise SystemRefused(
                f"find the way to {address}", errno=int(error.code), advice=f"see: ip route get {address}"
            ) from None
        return NextHop(gateway is None, mac, int(link.get_attr("IFLA_MTU") or 1500))
