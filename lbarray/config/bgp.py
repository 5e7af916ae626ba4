"""``[bgp]``: VIPs announced by a routing daemon, with ``failover.mode = "bgp"``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Accepts, PathText

__all__ = ["Bgp"]


def _interface_name(found: object) -> str:
    if not isinstance(found, str) or not 0 < len(found) < 16 or not found.isascii() or set(found) & set("/: \t\n"):
        raise ValueError(found)
    return found


@attrs.frozen
class Bgp:
    """``[bgp]``: every node that can serve holds the VIPs on an interface that a routing daemon announces the addresses
    of, and several serve them at once.

    :ivar interface: its name; it is made, and removed again. The daemon's configuration names it: for BIRD
        ``protocol direct`` with this interface, for FRR ``redistribute connected`` with a filter.
    :ivar control: BIRD's control socket, such as ``/run/bird/bird.ctl``. With it the node shows the sessions and says
        when none is established; without it the daemon is not asked.
    """

    interface: Annotated[str, Accepts(_interface_name, "an interface's name, 1 to 15 characters")] = "lbarray"
    control: PathText | None = None
