"""An interface that leads nowhere: what holds addresses that a routing daemon shall announce."""

from __future__ import annotations

import errno

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from lbarray.errors import SystemRefused
from lbarray.kernel.links import link

__all__ = ["add_dummy"]

#: A bridge without ports leads nowhere too, on kernels that were built without dummy interfaces.
_KINDS = ("dummy", "bridge")
_ADVICE = "run the node as root (CAP_NET_ADMIN), on a kernel with the dummy module"


def add_dummy(name: str) -> None:
    """Make the interface and bring it up.

    :raises SystemRefused: the kernel would not, or there is one of that name: it is not ours to remove later.
    """
    with IPRoute() as netlink:
        try:
            _make(netlink, name)
            netlink.link("set", index=link(name).index, state="up")
        except NetlinkError as error:
            raise SystemRefused(f"make the interface {name}", errno=int(error.code), advice=_ADVICE) from None


def _make(netlink: IPRoute, name: str) -> None:
    for kind in _KINDS:
        try:
            netlink.link("add", ifname=name, kind=kind)
            return
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise SystemRefused(
                    f"make the interface {name}",
                    errno=errno.EEXIST,
                    advice="set bgp.interface to a name that nobody has (ip link show)",
                ) from None
            if error.code != errno.EOPNOTSUPP or kind == _KINDS[-1]:
                raise
