"""Is a back end well? Probes in, up and down out; and how it comes back slowly."""

from __future__ import annotations

from typing import Final

import attrs

from lbarray.values import BackendState

__all__ = ["Health", "Seen", "ramp"]

_MAY_SERVE: Final = (BackendState.UP, BackendState.UNCHECKED)
#: Share of its weight that a recovered back end begins with.
FIRST_SHARE = 0.1


@attrs.frozen
class Seen:
    """What one probe saw. ``said`` is for the operator: a status, an error."""

    passed: bool
    said: str


class Health:
    """Rise and fall of one back end.

    Nobody has looked yet: it counts as well, or no request could be served while the first probes are on
    their way. The first answer decides at once; later it takes ``fall`` failures or ``rise``
    successes in a row.

    :ivar serves: may it have requests, as far as its health goes?
    :ivar since: when the state last changed, in the clock of ``now``.
    """

    def __init__(self, *, rise: int = 2, fall: int = 3, now: float = 0.0) -> None:
        self.rise = rise
        self.fall = fall
        self.state = BackendState.UNCHECKED
        self.serves = True
        self.since = now
        self.last = Seen(True, "not looked at yet")
        self._row = 0

    def saw(self, seen: Seen, now: float) -> bool:
        """A probe's result; true when the state changed."""
        if seen.passed == self.last.passed or self.state is BackendState.UNCHECKED:
            self._row += 1
        else:
            self._row = 1
        self.last = seen
        if self.state is BackendState.UNCHECKED:
            return self._become(BackendState.UP if seen.passed else BackendState.DOWN, now)
        if seen.passed and self.state is BackendState.DOWN and self._row >= self.rise:
            return self._become(BackendState.UP, now)
        if not seen.passed and self.state is BackendState.UP and self._row >= self.fall:
            return self._become(BackendState.DOWN, now)
        return False

    def unwatched(self, now: float) -> None:
        """Nobody looks any more: it counts as well."""
        if self.state is not BackendState.UNCHECKED:
            self.last = Seen(True, "not looked at")
            self._become(BackendState.UNCHECKED, now)

    def told(self, state: BackendState, seen: Seen, now: float) -> bool:
        """Somebody else (the node's own process, for a worker process) has decided; true when the state changed."""
        self.last = seen
        return state is not self.state and self._become(state, now)

    def _become(self, state: BackendState, now: float) -> bool:
        self.state = state
        self.serves = state in _MAY_SERVE
        self.since = now
        self._row = 0
        return True


def ramp(elapsed_s: float, slow_start_s: float) -> float:
    """Share of its weight that a back end has ``elapsed_s`` after it came back: in a straight line up to 1."""
    if elapsed_s >= slow_start_s:
        return 1.0
    return max(FIRST_SHARE, elapsed_s / slow_start_s)
