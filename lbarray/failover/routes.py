"""The VIPs of a node that announces them instead of owning them: many schedulers at once, behind a router.

A node that can serve holds each VIP as an address of one interface, which a routing daemon announces as routes to this
machine. The addresses have a lifetime and are renewed: when the node dies, the kernel lets them go and the daemon
withdraws the routes. Nothing has to be told to the daemon, so it can be any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.failover.bird import Session, SessionsFactory
from lbarray.failover.tracking import Condition
from lbarray.kernel.addresses import add_address, remove_address
from lbarray.kernel.dummy import add_dummy
from lbarray.kernel.journal import Journal, Undo
from lbarray.telemetry.counters import Counters
from lbarray.values import Address

__all__ = ["LIFETIME_S", "RouteService"]

#: Seconds that the kernel keeps an address which nobody renews; seconds between two renewals.
LIFETIME_S = 3
RENEW_S = 1.0
#: Seconds between two questions to the routing daemon.
ASK_S = 5.0


class RouteService(Service):
    """Announces the VIPs while every condition holds, and withdraws them as soon as one does not.

    :param interface: the name of the interface to make.
    :param control: BIRD's control socket, to know its sessions; ``None``: do not ask.
    :param changed: the VIPs are announced now, or no longer are.
    :ivar active: the VIPs that are announced.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        vips: Sequence[Address],
        interface: str,
        control: Path | None,
        journal: Journal,
        counters: Counters,
        changed: Callable[[], None],
        make: Callable[[str], None] = add_dummy,
        hold: Callable[[str, IPv4Interface | IPv6Interface], None] = lambda interface, vip: add_address(
            interface, vip, lifetime_s=LIFETIME_S
        ),
        release: Callable[[str, IPv4Interface | IPv6Interface], None] = remove_address,
    ) -> None:
        self.active: tuple[Address, ...] = ()
        self.sessions: list[Session] = []
        self._reactor = reactor
        self._vips = tuple(ip_interface(f"{vip}/{vip.max_prefixlen}") for vip in vips)
        self._interface = interface
        self._control = control
        self._journal = journal
        self._counters = counters
        self._changed = changed
        self._make = make
        self._hold = hold
        self._release = release
        self._failing: dict[str, str] = {"workers": "no worker is known to accept"}
        self._daemon_trouble = ""
        self._said_sessions: bool | None = None
        self._refused = ""
        self._renewing = LoopingCall(self._renew)
        self._asking = LoopingCall(self._ask)
        self._renewing.clock = self._asking.clock = reactor

    def startService(self) -> None:
        """:raises SystemRefused: the interface cannot be made."""
        self._journal.record(Undo("dummy", (self._interface,)))
        self._make(self._interface)
        super().startService()
        self._renewing.start(RENEW_S)
        self._settle()
        if self._control is not None:
            self._asking.start(ASK_S)

    def stopService(self) -> None:
        """Withdraw; the router sends new packets elsewhere as soon as it has heard."""
        super().stopService()
        for loop in (self._renewing, self._asking):
            if loop.running:
                loop.stop()
        self.report(Condition("running"), False, "the node is stopping")
        self._journal.undo(Undo("dummy", (self._interface,)))

    def reconfigure(self, vips: Iterable[Address]) -> None:
        """Announce these from now on: those that are gone are withdrawn, the others stay as they are."""
        before, self._vips = self._vips, tuple(ip_interface(f"{vip}/{vip.max_prefixlen}") for vip in vips)
        if not self.active:
            return
        for vip in before:
            if vip not in self._vips:
                self._try(self._release, vip)
        self.active = tuple(vip.ip for vip in self._vips)
        self._renew()
        self._changed()

    def report(self, condition: Condition, good: bool, why: str = "") -> None:
        """Learn that something which must be true of an announcing node is, or ``why`` it is not."""
        if good:
            self._failing.pop(condition.name, None)
        else:
            self._failing[condition.name] = why
        self._settle()

    def _settle(self) -> None:
        if self._failing and self.active:
            for vip in self._vips:
                self._try(self._release, vip)
            self.active = ()
            self._counters.add("routes_withdrawn")
            self.log.warn("routes withdrawn: {why}", why="; ".join(self._failing.values()))
            self._changed()
        elif not self._failing and not self.active and self.running:
            self.active = tuple(vip.ip for vip in self._vips)
            self._renew()
            self._counters.add("routes_announced")
            self.log.info(
                "routes announced, by addresses on {interface}: {vips}",
                interface=self._interface,
                vips=", ".join(str(vip.ip) for vip in self._vips),
            )
            self._changed()

    def _renew(self) -> None:
        if self.active:
            for vip in self._vips:
                self._try(self._hold, vip)

    def _try(
        self, change: Callable[[str, IPv4Interface | IPv6Interface], None], vip: IPv4Interface | IPv6Interface
    ) -> None:
        try:
            change(self._interface, vip)
            self._refused = ""
        except SystemRefused as error:
            self._counters.add("route_refused")
            if str(error) != self._refused:
                self._refused = str(error)
                self.log.critical("{error}; the VIP is not announced as it should be", error=error)

    def _ask(self) -> None:
        if self._control is not None:
            self._reactor.connectUNIX(str(self._control), SessionsFactory(self._answered), timeout=2)

    def _answered(self, sessions: list[Session], trouble: str) -> None:
        self.sessions = sessions
        self._daemon_trouble = trouble
        established = any(session.established for session in sessions)
        if established == self._said_sessions:
            return
        self._said_sessions = established
        if established:
            self.log.info("BGP: {sessions}", sessions=self._sessions_text())
        else:
            self._counters.add("bgp_without_session")
            what = trouble or self._sessions_text() or "BIRD has no protocol bgp"
            self.log.error(
                "no BGP session is established, no router sends us clients: {what} ({control}; birdc show protocols)",
                what=what,
                control=str(self._control),
            )

    def _sessions_text(self) -> str:
        return ", ".join(f"{session.name} {session.state}" for session in self.sessions)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        return {
            "announced": [str(vip) for vip in self.active],
            "interface": self._interface,
            "withheld": dict(self._failing),
            "sessions": {session.name: session.state for session in self.sessions},
            "daemon": self._daemon_trouble,
        }
