"""What a node knows of itself that bears on who should own the VIPs: conditions in, a priority out."""

from __future__ import annotations

import attrs

__all__ = ["Condition", "Rise", "Tracker"]


@attrs.frozen
class Condition:
    """One thing that must be true of this node.

    :ivar name: ``carrier``, ``plane``, ``workers``, ``script NAME``, …: the label of counters and status.
    :ivar weight: by how much its failure lowers the priority; ``None``: the node may own nothing meanwhile.
    """

    name: str
    weight: int | None = None


class Tracker:
    """The conditions of one virtual router on one node.

    :param base: the configured priority, 1 to 255.
    """

    def __init__(self, base: int) -> None:
        self._base = base
        self._failing: dict[Condition, str] = {}

    def rebase(self, base: int) -> None:
        """The configured priority is another now."""
        self._base = base

    def report(self, condition: Condition, good: bool, why: str = "") -> bool:
        """Learn that a condition holds, or ``why`` it does not; true when that is news."""
        if good:
            return self._failing.pop(condition, None) is not None
        news = condition not in self._failing
        self._failing[condition] = why
        return news

    @property
    def fit(self) -> bool:
        """May this node own the addresses?"""
        return all(condition.weight is not None for condition in self._failing)

    @property
    def priority(self) -> int:
        """What the node is worth: never below 1, and 255 stays 255 (RFC 9568 §5.2.4)."""
        if self._base == 255:
            return 255
        return max(1, self._base - sum(condition.weight or 0 for condition in self._failing))

    @property
    def failing(self) -> dict[str, str]:
        """What fails, and why, by name."""
        return {condition.name: why for condition, why in sorted(self._failing.items(), key=lambda item: item[0].name)}


class Rise:
    """A verdict that changes only after some results in a row.

    :param fall: failures in a row that make it bad; :param rise: successes in a row that make it good again.
    :ivar good: the verdict; good until shown otherwise.
    """

    def __init__(self, *, fall: int, rise: int) -> None:
        self.good = True
        self._needed = {True: fall, False: rise}
        self._against = 0

    def seen(self, passed: bool) -> bool:
        """Take one result in; the verdict after it."""
        if passed is self.good:
            self._against = 0
        else:
            self._against += 1
            if self._against >= self._needed[self.good]:
                self.good, self._against = passed, 0
        return self.good
