"""Does a stranger have our address? Address conflict detection (RFC 5227, RFC 4862), without I/O.

A takeover must not wait for the seconds that the RFC's probing takes. So the probing happens while the node waits at
its start, and from then on every claim on the segment is looked at. Claims of the array's own nodes, and of whoever is
the VRRP owner when it makes them, are no conflict: both change hands in an orderly way.
"""

from __future__ import annotations

from collections.abc import Iterable

from lbarray.failover.announce import Claim
from lbarray.values import Address

__all__ = ["DEFEND_S", "FORGET_S", "DuplicateWatch"]

#: Seconds between two defences of an address (RFC 5227 §1.1, DEFEND_INTERVAL).
DEFEND_S = 10.0
#: Seconds after its last claim at which a stranger is believed to be gone.
FORGET_S = 10.0


class DuplicateWatch:
    """The claims on the addresses of one virtual router.

    :param addresses: the VIPs.
    :param ours: MAC addresses that may claim them: this node's, the virtual router's.
    """

    def __init__(self, *, addresses: Iterable[Address], ours: Iterable[bytes]) -> None:
        self._addresses = frozenset(addresses)
        self._known = set(ours)
        self._strangers: dict[Address, tuple[bytes, float]] = {}
        self._defend_at = 0.0

    def know(self, macs: Iterable[bytes]) -> None:
        """These are nodes of the array: their claims are no conflict, also those made before."""
        self._known.update(mac for mac in macs if mac)
        self._strangers = {
            address: (mac, when) for address, (mac, when) in self._strangers.items() if mac not in self._known
        }

    def adopt(self, now: float, within_s: float) -> None:
        """The VRRP owner was just heard: who claimed its addresses a moment ago was it."""
        self.know(mac for mac, when in self._strangers.values() if now - when <= within_s)

    def claimed(self, claim: Claim, now: float) -> bool:
        """Take a claim in; true when it is a stranger's."""
        if claim.address not in self._addresses or claim.mac in self._known:
            return False
        self._strangers[claim.address] = (claim.mac, now)
        return True

    def stranger(self, now: float) -> Claim | None:
        """A stranger that has one of the addresses now, as far as we know."""
        for address, (mac, when) in self._strangers.items():
            if now - when <= FORGET_S:
                return Claim(address, mac)
        return None

    def may_defend(self, now: float) -> bool:
        """May we announce the addresses against a stranger again? At most once in :data:`DEFEND_S`."""
        if now < self._defend_at:
            return False
        self._defend_at = now + DEFEND_S
        return True
