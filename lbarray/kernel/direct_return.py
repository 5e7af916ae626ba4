"""What a machine needs so that it answers clients from the VIP without answering for it on the segment.

The VIP stands on ``lo``, as IPVS direct routing has it. ARP is answered for addresses of the interface asked on only
(``arp_ignore=1``) and never names the VIP as sender (``arp_announce=2``); the source of what comes in is not checked
strictly (``rp_filter``), for a client's packet comes from the scheduler and its answer may leave by another way. Linux
takes the larger of ``conf.all`` and ``conf.INTERFACE`` for each of them (``ip-sysctl``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_interface

import attrs

from lbarray.errors import SystemRefused
from lbarray.kernel.addresses import add_address, addresses_of
from lbarray.kernel.links import link
from lbarray.kernel.sysctls import read_sysctl, write_sysctl
from lbarray.values import Address

__all__ = ["Fault", "faults"]


@attrs.frozen
class Fault:
    """Something that is not as direct return needs it.

    :ivar what: for operators: what is found, and what has to be.
    :ivar repair: makes it right, and may raise :class:`SystemRefused`; ``None``: only somebody else can.
    """

    what: str
    repair: Callable[[], object] | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return self.what


@attrs.frozen
class _Rule:
    """Values of a kernel parameter that will do, and where the one to write goes."""

    parameter: str
    accepted: tuple[int, ...]
    write: int
    everywhere: bool
    consequence: str


_RULES = (
    _Rule(
        "arp_ignore", (1, 2), 1, True, "this machine answers ARP for the VIP and takes its packets from the scheduler"
    ),
    _Rule("arp_announce", (2,), 2, True, "this machine's ARP requests name the VIP and mislead its neighbours"),
    _Rule("rp_filter", (0, 2), 2, False, "clients' packets that come by the scheduler may be dropped as spoofed"),
)


def faults(
    vips: Iterable[Address],
    interface: str,
    *,
    read: Callable[[str], str] = read_sysctl,
    write: Callable[[str, str], object] = write_sysctl,
) -> list[Fault]:
    """Everything that is wrong now with the worker's side of direct return on this machine.

    :param interface: where the array's segment is.
    :param write: sets a kernel parameter.
    """
    found: list[Fault] = []
    vips = list(vips)
    if any(vip.version == 4 for vip in vips):
        for rule in _RULES:
            fault = _parameter(rule, interface, read, write)
            if fault is not None:
                found.append(fault)
    try:
        held = addresses_of("lo")
        place = link(interface)
    except SystemRefused as error:
        return [*found, Fault(str(error))]
    found += [_missing(vip) for vip in vips if vip not in held]
    if not place.carrier:
        found.append(Fault(f"{interface} has no carrier: its cable or its bond is down"))
    return found


def _missing(vip: Address) -> Fault:
    host = ip_interface(f"{vip}/{vip.max_prefixlen}")
    return Fault(f"{vip} is missing on lo: its packets would be refused or sent away", lambda: add_address("lo", host))


def _parameter(
    rule: _Rule, interface: str, read: Callable[[str], str], write: Callable[[str, str], object]
) -> Fault | None:
    own = f"net.ipv4.conf.{interface.replace('.', '/')}.{rule.parameter}"
    everywhere = f"net.ipv4.conf.all.{rule.parameter}"
    values: Sequence[int]
    try:
        values = [int(read(name)) for name in (everywhere, own)]
    except (SystemRefused, ValueError) as error:
        return Fault(f"{rule.parameter} cannot be read: {error}")
    effective = max(values)
    if effective in rule.accepted:
        return None
    name = everywhere if rule.everywhere else own
    if effective > rule.write:
        # The larger of the two counts: both have to come down to what will do.
        return Fault(
            f"net.ipv4.conf.*.{rule.parameter} is {effective}, has to be {rule.write}: {rule.consequence}",
            lambda: [write(each, str(rule.write)) for each in (everywhere, own)],
        )
    return Fault(
        f"{name} is {effective}, has to be {rule.write}: {rule.consequence}",
        lambda: write(name, str(rule.write)),
    )
