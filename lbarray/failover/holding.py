"""Having a virtual router's addresses: on the node's interface, or on one of its own with the virtual MAC address."""

from __future__ import annotations

import math
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.kernel.addresses import add_address, remove_address
from lbarray.kernel.journal import Journal, Undo
from lbarray.kernel.links import link, remove_interface
from lbarray.kernel.macvlan import add_macvlan
from lbarray.telemetry.counters import Counters

__all__ = ["AddressHolder", "virtual_mac"]


def virtual_mac(version: int, router_id: int) -> bytes:
    """The MAC address of a virtual router (RFC 9568 §7.3)."""
    return bytes([0x00, 0x00, 0x5E, 0x00, 0x02 if version == 6 else 0x01, router_id])


class AddressHolder:
    """Takes and releases the addresses of one router; what it does is in the journal before it is done.

    A killed or frozen owner must not go on answering for the addresses beside its successor. So they have a lifetime
    in the kernel, and this process renews it: no second process is needed that could die with the first.

    :param mac: the virtual MAC address, or ``None`` to hold the addresses on ``interface`` itself.
    :ivar parent_mac: the MAC address of ``interface``, six octets; whoever sees it change says so here.
    """

    log = Logger()

    def __init__(
        self,
        *,
        interface: str,
        vips: tuple[IPv4Interface | IPv6Interface, ...],
        mac: bytes | None,
        router_id: int,
        interval_s: float,
        journal: Journal,
        counters: Counters,
    ) -> None:
        self._parent = interface
        self._vips = vips
        self._mac = mac
        self._journal = journal
        self._counters = counters
        self.parent_mac = link(interface).mac
        self._lifetime_s = _lifetime_s(interval_s)
        self.interface = f"lbv{vips[0].version}-{router_id}" if mac else interface

    @property
    def mac(self) -> bytes:
        """Where neighbours find the addresses when we have them: six octets."""
        return self._mac or self.parent_mac

    def take(self) -> str:
        """Have the addresses. What the kernel refuses is counted, and the rest is taken.

        :returns: why some could not be had; empty when all were.
        """
        refused = []
        if self._mac:
            try:
                self._journal.record(Undo("macvlan", (self.interface,)))
                add_macvlan(self.interface, self._parent, self._mac)
            except SystemRefused as error:
                self._counters.add("vip_refused", self.interface)
                return str(error)
        for vip in self._held():
            try:
                self._journal.record(Undo("address", (self.interface, str(vip))))
                add_address(self.interface, vip, lifetime_s=self._lifetime_s)
            except SystemRefused as error:
                self._counters.add("vip_refused", self.interface)
                refused.append(str(error))
        return "; ".join(refused)

    def follow(self, vips: tuple[IPv4Interface | IPv6Interface, ...], interval_s: float, *, having: bool) -> str:
        """Hold these from now on: what is new is taken and what is gone is released, where the others are had.

        :returns: as :meth:`take`.
        """
        self._lifetime_s = _lifetime_s(interval_s)
        before, self._vips = self._held(), vips
        if not having:
            return ""
        wanted = self._held()
        for vip in before:
            if vip not in wanted:
                self._give_up(vip)
        return self.take()

    def renew(self) -> None:
        """Keep the addresses for another lifetime."""
        for vip in self._held():
            try:
                add_address(self.interface, vip, lifetime_s=self._lifetime_s)
            except SystemRefused as error:
                self._counters.add("vip_refused", self.interface)
                self.log.critical("cannot keep the VIP {vip}: {error}", vip=vip.ip, error=error)

    def release(self) -> None:
        """Have the addresses no longer. Idempotent."""
        for vip in self._held():
            self._give_up(vip)
        if self._mac:
            try:
                self._journal.undo(Undo("macvlan", (self.interface,)))
                remove_interface(self.interface)
            except SystemRefused as error:
                self._counters.add("vip_refused", self.interface)
                self.log.critical("cannot give up the virtual MAC address: {error}", error=error)

    def _give_up(self, vip: IPv4Interface | IPv6Interface) -> None:
        try:
            self._journal.undo(Undo("address", (self.interface, str(vip))))
            remove_address(self.interface, vip)
        except SystemRefused as error:
            self._counters.add("vip_refused", self.interface)
            self.log.critical("cannot give up the VIP {vip}: {error}", vip=vip.ip, error=error)

    def _held(self) -> tuple[IPv4Interface | IPv6Interface, ...]:
        if not self._mac:
            return self._vips
        # As single addresses: a network on this interface too would be a second route to it.
        return tuple(ip_interface(f"{vip.ip}/{vip.max_prefixlen}") for vip in self._vips)


def _lifetime_s(interval_s: float) -> int:
    return math.ceil(4 * interval_s) + 2
