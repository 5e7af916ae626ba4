"""IP addresses of interfaces, by netlink. Adding and removing are idempotent."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import link
from lbarray.kernel.sysctls import write_sysctl
from lbarray.values import Address

__all__ = ["add_address", "addresses_of", "hold_on_loopback", "let_go_on_loopback", "remove_address", "undoers"]

_ROOT_ADVICE = "run the node as root (CAP_NET_ADMIN)"


def _netlink_code(error: NetlinkError) -> int:
    return int(error.code)


def addresses_of(interface: str) -> set[Address]:
    """The addresses an interface has now.

    :raises SystemRefused: there is no such interface.
    """
    index = link(interface).index
    with IPRoute() as netlink:
        found = set()
        for message in netlink.get_addr(index=index):
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            found.add(ip_interface(text).ip)
        return found


def add_address(interface: str, address: IPv4Interface | IPv6Interface, *, lifetime_s: int | None = None) -> None:
    """Give ``interface`` an address, or a new lifetime to the one it has.

    :param lifetime_s: the kernel itself removes the address after so many seconds, unless it is added again:
        what a node holds so is gone soon after the node is. ``None`` is for ever.
    :raises SystemRefused: the kernel would not, or there is no such interface.
    """
    index = link(interface).index
    options: dict[str, object] = {}
    if lifetime_s is not None:
        options |= {"preferred_lft": lifetime_s, "valid_lft": lifetime_s}
    if address.version == 6:
        # Without duplicate address detection: the VIP's former owner may still be there for a moment.
        options["flags"] = 0x02  # IFA_F_NODAD
    with IPRoute() as netlink:
        try:
            netlink.addr(
                "replace",
                index=index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                **options,
            )
        except NetlinkError as error:
            if _netlink_code(error) != errno.EEXIST:
                raise SystemRefused(
                    f"add {address} to {interface}", errno=_netlink_code(error), advice=_ROOT_ADVICE
                ) from None


def remove_address(interface: str, address: IPv4Interface | IPv6Interface | str) -> None:
    """Take an address from ``interface``; nothing happens when either is gone.

    :raises SystemRefused: the kernel would not.
    """
    wanted = ip_interface(address)
    try:
        index = link(interface).index
    except SystemRefused:
        return
    with IPRoute() as netlink:
        try:
            netlink.addr("del", index=index, address=str(wanted.ip), prefixlen=wanted.network.prefixlen)
        except NetlinkError as error:
            if _netlink_code(error) not in (errno.EADDRNOTAVAIL, errno.ENODEV):
                raise SystemRefused(
                    f"remove {wanted} from {interface}", errno=_netlink_code(error), advice=_ROOT_ADVICE
                ) from None


def _restore_sysctl(name: str, value: str) -> None:
    try:
        write_sysctl(name, value)
    except SystemRefused as error:
        if error.errno != errno.ENOENT:  # an interface that is gone took its parameters with it
            raise


def hold_on_loopback(vips: Iterable[Address], interface: str, journal: Journal) -> None:
    """Make this machine accept the VIPs' packets without answering for them on the segment.

    The VIP stands on ``lo``; ``arp_ignore=1`` answers ARP only for addresses of the interface asked on,
    ``arp_announce=2`` never names the VIP as a sender (Linux ``ip-sysctl``; as IPVS direct routing does).

    :raises SystemRefused: the kernel would not.
    """
    for name, value in (
        ("net.ipv4.conf.all.arp_ignore", "1"),
        ("net.ipv4.conf.all.arp_announce", "2"),
        (f"net.ipv4.conf.{interface.replace('.', '/')}.rp_filter", "0"),
    ):
        before = write_sysctl(name, value)
        if before != value:
            journal.record(Undo("sysctl", (name, before)))
    for vip in vips:
        host = ip_interface(f"{vip}/{vip.max_prefixlen}")
        journal.record(Undo("address", ("lo", str(host))))
        add_address("lo", host)


def let_go_on_loopback(wanted: Collection[Address], journal: Journal) -> None:
    """Take from ``lo`` what :func:`hold_on_loopback` put there, but for ``wanted``.

    :raises SystemRefused: the kernel would not.
    """
    for undo in [undo for undo in journal.pending() if undo.kind == "address" and undo.arguments[0] == "lo"]:
        host = ip_interface(undo.arguments[1])
        if host.ip not in wanted:
            remove_address("lo", host)
            journal.undo(undo)


def undoers() -> dict[str, Callable[..., None]]:
    """What takes addresses and sysctls back, for a :class:`Journal`."""
    return {"address": remove_address, "sysctl": _restore_sysctl}
