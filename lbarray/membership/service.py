"""Membership as a service of the node: a UDP port, a timer, and those who want to know."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IMembershipSource
from lbarray.membership.channel import ArrayChannel
from lbarray.membership.datagram import BadDatagram, DatagramCodec, Kind, ReplayGuard, Stamp
from lbarray.membership.heartbeat import decode_report, encode_report
from lbarray.membership.requests import ArrayRequests
from lbarray.membership.table import Event, Joined, Left, MembershipTable
from lbarray.telemetry.counters import Counters
from lbarray.values import Address, NodeReport

__all__ = ["MembershipService"]

#: So often a node that has just started looks whether it is its own key that is wrong. Later it is the others' fault.
FIRST_LOOKS = 4
#: Heartbeat intervals after which a node has heard everybody, also when one heartbeat was lost.
SETTLE_INTERVALS = 2.5
#: Who is heard anew is answered by a heartbeat at once, so often in an interval.
ANSWERS = 4
#: Seconds between two complaints about the same peer and cause.
COMPLAIN_EVERY_S = 600.0


class _Port(DatagramProtocol):
    def __init__(self, received: Callable[[bytes, str], None]) -> None:
        self._received = received

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._received(datagram, addr[0])


@implementer(IMembershipSource)
class MembershipService(Service):
    """Tells the others that this node lives, and hears who else does; carries the messages of the array's channel.

    :param peers: address of every other node, by name.
    :param report: what this node says of itself now.
    :param alone_with_wrong_key: called when, for as long after the start as makes a silent node lost, every
        heartbeat of the other nodes was signed with another key than ours: it is ours that is wrong.
    :param wall_clock: seconds since the epoch.
    :ivar settled: whoever lives has been heard since the start: what this node computes of it is what the others do.
    :ivar channel: the :class:`lbarray.interfaces.IArrayChannel`.
    :ivar requests: orders and questions to other nodes.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        name: str,
        bind: Address,
        port: int,
        peers: Mapping[str, Address],
        codec: DatagramCodec,
        interval_s: float,
        lost_after: int,
        report: Callable[[], NodeReport],
        counters: Counters,
        key_hint: str = "array.key_file",
        alone_with_wrong_key: Callable[[SystemRefused], None] = lambda error: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settled = False
        self.channel = ArrayChannel(send=self._send_message, counters=counters)
        self.requests = ArrayRequests(clock=reactor, channel=self.channel)
        self.table = MembershipTable(lost_after_s=interval_s * lost_after)
        self._reactor = reactor
        self._name = name
        self._bind = bind
        self._port = port
        self._peers = {peer: str(address) for peer, address in peers.items()}
        self._names = {address: peer for peer, address in self._peers.items()}
        self._codec = codec
        self._guard = ReplayGuard()
        self._interval_s = interval_s
        self._report = report
        self._counters = counters
        self._key_hint = key_hint
        self._alone_with_wrong_key = alone_with_wrong_key
        self._wall_clock = wall_clock
        self._sequence = 0
        self._answer_at = 0.0
        self._listening: IListeningPort | None = None
        self._protocol = _Port(self._received)
        self._loop = LoopingCall(self.beat)
        self._loop.clock = reactor
        self._lost: IDelayedCall | None = None
        self._first_look: IDelayedCall | None = None
        self._looks = 0
        self._settling: IDelayedCall | None = None
        self._wrong_keys: set[str] = set()
        self._gave_up = False
        self._listeners: list[Callable[[Sequence[NodeReport]], None]] = []
        self._complained: dict[tuple[str, str], float] = {}

    def startService(self) -> None:
        """:raises SystemRefused: the port is taken, or the address is not ours."""
        try:
            self._listening = self._reactor.listenUDP(self._port, self._protocol, interface=str(self._bind))
        except CannotListenError as error:
            raise SystemRefused(
                f"listen for heartbeats on UDP {self._bind}:{self._port}",
                errno=getattr(error.socketError, "errno", 0) or 0,
                advice=f"see who has it: ss -lunp 'sport = :{self._port}'; or set membership.port",
            ) from None
        super().startService()
        self._loop.start(self._interval_s)
        self._first_look = self._reactor.callLater(self.table.lost_after_s, self._look_around)
        # From when the reactor runs: the parts that start behind this one take their time, and heartbeats that came
        # meanwhile still wait in the socket.
        self._settling = self._reactor.callLater(0, self._begin_to_settle)

    def stopService(self) -> Any:
        """Say farewell, so that nobody has to wait for our silence."""
        super().stopService()
        if self._loop.running:
            self._loop.stop()
        if self._lost is not None:
            self._lost.cancel()
            self._lost = None
        if self._first_look is not None:
            self._first_look.cancel()
            self._first_look = None
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self.settled = False
        self.requests.stop()
        if self._listening is None:
            return None
        self._send(Kind.LEAVING, attrs.evolve(self._report(), accepting=False))
        listening, self._listening = self._listening, None
        return listening.stopListening()

    def reconfigure(self, *, interval_s: float, lost_after: int) -> None:
        """Beat like this, and wait for so many intervals of silence. The other nodes should do the same soon."""
        self._interval_s = interval_s
        self.table.lost_after_s = interval_s * lost_after
        if self._loop.running:
            self._loop.stop()
            self._loop.start(interval_s)

    def members(self) -> list[NodeReport]:
        """Everybody who is in, this node as it is now."""
        own = self._report()
        return [own if report.name == self._name else report for report in self.table.reports()]

    def subscribe(self, changed: Callable[[Sequence[NodeReport]], None]) -> Callable[[], None]:
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def suspect(self, name: str, silent_s: float) -> None:
        """Another part of this node found ``name`` dead: its advertisements ceased. It is out unless a heartbeat came
        within ``silent_s``."""
        self._apply(self.table.suspect(name, silent_s, self._reactor.seconds()))

    def beat(self) -> None:
        """Send a heartbeat now: each interval, and when something changed that others should know at once."""
        own = self._report()
        self._apply(self.table.heard(own, self._reactor.seconds()))
        self._send(Kind.ALIVE, own)

    def _send_message(self, body: bytes, to: str | None) -> None:
        peers = self._peers if to is None else {to: self._peers[to]} if to in self._peers else {}
        self._write(Kind.MESSAGE, body, self._report().incarnation, peers)

    def _send(self, kind: Kind, report: NodeReport) -> None:
        self._write(kind, encode_report(report), report.incarnation, self._peers)

    def _write(self, kind: Kind, body: bytes, incarnation: int, peers: Mapping[str, str]) -> None:
        if self._listening is None:
            return
        self._sequence += 1
        stamp = Stamp(kind, self._name, incarnation, self._sequence, self._wall_clock())
        datagram = self._codec.seal(stamp, body)
        for peer, address in peers.items():
            try:
                self._protocol.transport.write(datagram, (address, self._port))  # type: ignore[union-attr]
            except OSError:
                self._counters.add("heartbeat_send_failed", peer)

    def _received(self, datagram: bytes, source: str) -> None:
        try:
            stamp, body = self._codec.open(datagram)
            if stamp.sender not in self._peers:
                raise BadDatagram(
                    "stranger", f"a datagram of {stamp.sender}, which is no other node of this configuration"
                )
            self._guard.admit(stamp, self._wall_clock())
            if stamp.kind is Kind.MESSAGE:
                self.channel.deliver(stamp.sender, body)
            else:
                self._heard(stamp, decode_report(body, name=stamp.sender, incarnation=stamp.incarnation))
        except BadDatagram as error:
            self._counters.add("heartbeat_refused", error.why)
            if error.why != "replayed":
                self._complain(error, source)

    def _heard(self, stamp: Stamp, report: NodeReport) -> None:
        self._counters.add("heartbeats", report.name)
        if stamp.kind is Kind.LEAVING:
            self._apply(self.table.left(report.name))
        else:
            events = self.table.heard(report, self._reactor.seconds())
            self._apply(events)
            if any(isinstance(event, Joined) for event in events):
                self._answer()
            if not self.settled and self._peers.keys() <= {known.name for known in self.table.reports()}:
                self._settle()

    def _answer(self) -> None:
        """A node is in that may not have heard us either: the network was parted, or it has just begun."""
        now = self._reactor.seconds()
        if self._loop.running and now >= self._answer_at:
            self._answer_at = now + self._interval_s / ANSWERS
            self.beat()

    def _begin_to_settle(self) -> None:
        self._settling = self._reactor.callLater(SETTLE_INTERVALS * self._interval_s, self._settle)

    def _settle(self) -> None:
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        self._settling = None
        self.settled = True
        self.beat()

    def _look_around(self) -> None:
        self._first_look = None
        self._looks += 1
        if self._counters.total("heartbeats"):
            return
        if not self._wrong_keys and self._looks < FIRST_LOOKS:
            # Nothing at all was heard: on a busy machine that takes its time.
            self._first_look = self._reactor.callLater(self.table.lost_after_s, self._look_around)
        elif self._wrong_keys:
            peers = ", ".join(sorted(self._wrong_keys))
            self._gave_up = True
            self._alone_with_wrong_key(
                SystemRefused(
                    f"join the array: the shared key in {self._key_hint} is wrong",
                    detail=f"every heartbeat of {peers} is signed with another key",
                    advice=f"put the same file on all nodes (compare: sha256sum {self._key_hint})",
                )
            )

    def _complain(self, error: BadDatagram, source: str) -> None:
        now = self._reactor.seconds()
        key = (source, error.why)
        if error.why == "wrong_key" and source in self._names:
            self._wrong_keys.add(self._names[source])
            if self._first_look is not None or self._gave_up:
                return  # still finding out whose key it is; then it is said once
        if now - self._complained.get(key, -COMPLAIN_EVERY_S) < COMPLAIN_EVERY_S:
            return
        if len(self._complained) > 1000:
            self._complained.clear()
        self._complained[key] = now
        who = f"node {self._names[source]} ({source})" if source in self._names else source
        if error.why == "wrong_key":
            self.log.error(
                "wrong shared key: {who} signs its heartbeats with another key than {hint}; "
                "the two do not form an array. Put the same file on both nodes (compare: sha256sum {hint})",
                who=who,
                hint=self._key_hint,
            )
        else:
            self.log.error("from {who}: {detail}", who=who, detail=error.detail)

    def _silence(self) -> None:
        self._lost = None
        self._apply(self.table.tick(self._reactor.seconds()))

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Joined) and event.name != self._name:
                self._counters.add("members_joined")
                self.log.info("node {name} is in", name=event.name)
            elif isinstance(event, Left):
                self._counters.add("members_left")
                how = f"silent for {event.silent_s:.1f} s" if event.silent_s else "said farewell"
                self.log.warn("node {name} is out: {how}", name=event.name, how=how)
        if self._lost is not None:
            self._lost.cancel()
            self._lost = None
        if self.running and self.table.deadline is not None:
            wait = max(0.01, self.table.deadline - self._reactor.seconds())
            self._lost = self._reactor.callLater(wait, self._silence)
        if events:
            members = self.members()
            for changed in list(self._listeners):
                changed(members)

    def status(self) -> dict[str, object]:
        """What the console shows: each member, and who is missing."""
        now = self._reactor.seconds()
        members: dict[str, object] = {}
        for report in self.members():
            members[report.name] = {
                "address": str(report.address),
                "mac": report.mac.hex(":"),
                "roles": [role.name for role in report.roles],
                "accepting": report.accepting,
                "draining": report.draining,
                "owned": [str(vip) for vip in report.owned],
                "weight": report.weight,
                "share": report.share / 1000,
                "connections": report.load.connections,
                "requests_per_s": round(report.load.requests_per_s, 1),
                "cpu": round(report.load.cpu, 3),
                "accept_queue": report.load.accept_queue,
                "configuration": report.configuration,
                "version": report.version,
                "able": sorted(report.able) if report.able is not None else None,
                "trouble": report.trouble,
                "since_s": round(now - (self.table.since(report.name) or now), 1),
            }
        missing = sorted(set(self._peers) - set(members))
        return {"members": members, "missing": missing}
