"""Who is in the array: heartbeats and the time in, joining and leaving out."""

from __future__ import annotations

import attrs

from lbarray.values import NodeReport

__all__ = ["Changed", "Event", "Joined", "Left", "MembershipTable"]


@attrs.frozen
class Joined:
    """A node is in."""

    name: str


@attrs.frozen
class Left:
    """A node is out. ``silent_s``: for how long nothing was heard; 0 when it said that it leaves."""

    name: str
    silent_s: float


@attrs.frozen
class Changed:
    """A member says something new that matters to the rows."""

    name: str


Event = Joined | Left | Changed


@attrs.define
class _Member:
    report: NodeReport
    since: float
    heard: float


def _matters(report: NodeReport) -> tuple[object, ...]:
    """What of a report others act on: everything but load."""
    return (
        report.address,
        report.mac,
        report.accepting,
        report.draining,
        report.weight,
        report.share,
        report.able,
        report.roles,
    )


class MembershipTable:
    """The members as this node knows them.

    :param lost_after_s: a node is out when nothing was heard of it for so long.
    """

    def __init__(self, *, lost_after_s: float) -> None:
        self.lost_after_s = lost_after_s
        self._members: dict[str, _Member] = {}

    @property
    def deadline(self) -> float | None:
        """When the first member will be lost if it stays silent."""
        heard = [member.heard for member in self._members.values()]
        return min(heard) + self.lost_after_s if heard else None

    def heard(self, report: NodeReport, now: float) -> list[Event]:
        """A verified report of a node."""
        member = self._members.get(report.name)
        if member is None:
            self._members[report.name] = _Member(report, now, now)
            return [Joined(report.name)]
        before, member.report, member.heard = member.report, report, now
        if before.incarnation != report.incarnation:
            member.since = now
        return [Changed(report.name)] if _matters(before) != _matters(report) else []

    def left(self, name: str) -> list[Event]:
        """A node said that it leaves."""
        return [Left(name, 0.0)] if self._members.pop(name, None) else []

    def suspect(self, name: str, silent_s: float, now: float) -> list[Event]:
        """Others than us found a node dead: drop it, unless it was heard within ``silent_s``. The next heartbeat, if
        there is one, brings it back."""
        member = self._members.get(name)
        if member is None or now - member.heard < silent_s:
            return []
        del self._members[name]
        return [Left(name, now - member.heard)]

    def tick(self, now: float) -> list[Event]:
        """Drop whoever has been silent for too long."""
        lost = [
            (name, now - member.heard)
            for name, member in self._members.items()
            if now - member.heard >= self.lost_after_s
        ]
        for name, _ in lost:
            del self._members[name]
        return [Left(name, silent_s) for name, silent_s in lost]

    def reports(self) -> list[NodeReport]:
        """The members, by name."""
        return [member.report for _, member in sorted(self._members.items())]

    def since(self, name: str) -> float | None:
        """When it joined, or restarted."""
        member = self._members.get(name)
        return member.since if member else None
