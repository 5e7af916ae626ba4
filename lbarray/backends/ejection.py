"""Passive health: what requests themselves tell of a back end, and its circuit breaker."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Collection, Iterator
from math import ceil
from typing import Any, Final

import attrs

__all__ = ["Circuit", "CircuitState", "EjectRules", "Ejector", "ImpossibleStep"]


class CircuitState(enum.Enum):
    """``CLOSED``: requests flow. ``OPEN``: ejected. ``HALF_OPEN``: one request at a time, on trial."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class _Seen(enum.Enum):
    TRIPPED = "tripped"
    TIME_OVER = "time over"
    WORKED = "worked"


class ImpossibleStep(Exception):
    """A circuit was told what cannot happen in its state."""


_NEXT: Final = {
    (CircuitState.CLOSED, _Seen.TRIPPED): CircuitState.OPEN,
    (CircuitState.OPEN, _Seen.TIME_OVER): CircuitState.HALF_OPEN,
    (CircuitState.OPEN, _Seen.WORKED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, _Seen.WORKED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, _Seen.TRIPPED): CircuitState.OPEN,
}


@attrs.frozen(kw_only=True)
class EjectRules:
    """When a back end is ejected for what its requests met with; 0 switches a rule off.

    :ivar consecutive: failures in a row.
    :ivar error_ratio: failures of a window's requests, 0 to 1.
    :ivar latency_factor: times the pool's median latency.
    :ivar min_requests: a window with fewer requests of a back end says nothing of it.
    :ivar window_s: how long requests are gathered for ratio and latency.
    :ivar base_s: the first ejection; each further one lasts that much longer, up to ``longest_s``.
    :ivar min_fit: share of the pool, 0 to 1, that is never ejected (panic threshold).
    """

    consecutive: int = 5
    error_ratio: float = 0.5
    latency_factor: float = 0.0
    min_requests: int = 20
    window_s: float = 10.0
    base_s: float = 10.0
    longest_s: float = 300.0
    min_fit: float = 0.5

    @property
    def active(self) -> bool:
        """Some rule is switched on."""
        return bool(self.consecutive or self.error_ratio or self.latency_factor)


class Circuit:
    """The breaker of one back end.

    :ivar why: what opened it last, for the operator.
    :ivar until: when an open one is tried again.
    :ivar in_row: failures in a row; :ivar requests: of this window; :ivar failures: likewise;
    :ivar latency_s: the sum of this window's measured latencies; :ivar measured: how many they are.
    """

    __slots__ = (
        "closed_at",
        "failures",
        "in_row",
        "latency_s",
        "measured",
        "requests",
        "state",
        "times",
        "until",
        "why",
    )

    def __init__(self) -> None:
        self.state = CircuitState.CLOSED
        self.why = ""
        self.until = 0.0
        self.times = 0
        self.closed_at = 0.0
        self.in_row = 0
        self.next_window()

    def next_window(self) -> None:
        """Forget what has been gathered."""
        self.requests = 0
        self.failures = 0
        self.latency_s = 0.0
        self.measured = 0

    def step(self, seen: _Seen) -> None:
        """:raises ImpossibleStep: not in this state."""
        try:
            self.state = _NEXT[self.state, seen]
        except KeyError:
            raise ImpossibleStep(f"{seen.value} in state {self.state.value}") from None


class Ejector:
    """Opens and closes the circuits of one pool. ``members`` have ``circuit``, and ``health.serves``."""

    def __init__(self, rules: EjectRules) -> None:
        self.rules = rules
        self._window_ends = 0.0

    def ended(self, members: Collection[Any], member: Any, failed: bool, latency_s: float | None, now: float) -> bool:
        """A request of ``member`` is over; true when its circuit has changed."""
        circuit: Circuit = member.circuit
        circuit.requests += 1
        if latency_s is not None:
            circuit.latency_s += latency_s
            circuit.measured += 1
        if not failed:
            circuit.in_row = 0
            if circuit.state is CircuitState.HALF_OPEN:
                self._close(circuit, now)
                return True
            return False
        circuit.failures += 1
        circuit.in_row += 1
        if circuit.state is CircuitState.HALF_OPEN:
            return self._open(circuit, "failed on trial", now)
        enough = self.rules.consecutive
        if enough and circuit.in_row >= enough and circuit.state is CircuitState.CLOSED and self._may(members):
            return self._open(circuit, f"{circuit.in_row} failures in a row", now)
        return False

    def tick(self, members: Collection[Any], now: float) -> list[Any]:
        """Look at the time, and at a window that is over; the members whose circuit has changed."""
        changed = []
        for member in members:
            circuit = member.circuit
            if circuit.state is CircuitState.OPEN and now >= circuit.until:
                circuit.step(_Seen.TIME_OVER)
                circuit.in_row = 0
                changed.append(member)
            elif circuit.state is CircuitState.CLOSED and now - circuit.closed_at > self.rules.longest_s:
                circuit.times = 0  # well for long: the next time is a first time
        if now >= self._window_ends:
            changed += self._review(members, now)
            self._window_ends = now + self.rules.window_s
        return changed

    def recovered(self, member: Any, now: float) -> bool:
        """A probe has found it well again after it was down; true when that closes its circuit."""
        if member.circuit.state is CircuitState.CLOSED:
            return False
        self._close(member.circuit, now)
        return True

    def _review(self, members: Collection[Any], now: float) -> Iterator[Any]:
        rules = self.rules
        judged = [member for member in members if member.circuit.requests >= rules.min_requests]
        latencies = {
            member: member.circuit.latency_s / member.circuit.measured
            for member in judged
            if member.circuit.measured >= rules.min_requests
        }
        median = statistics.median(latencies.values()) if len(latencies) > 2 else 0.0
        ejected = []
        for member in judged:
            circuit = member.circuit
            ratio = circuit.failures / circuit.requests
            latency = latencies.get(member, 0.0)
            why = ""
            if rules.error_ratio and ratio >= rules.error_ratio:
                why = f"{circuit.failures} of {circuit.requests} requests failed"
            elif rules.latency_factor and median and latency > rules.latency_factor * median:
                why = f"answers after {latency * 1000:.0f} ms, the pool's median is {median * 1000:.0f} ms"
            if why and circuit.state is CircuitState.CLOSED and self._may(members):
                self._open(circuit, why, now)
                ejected.append(member)
        for member in members:
            member.circuit.next_window()
        return iter(ejected)

    def _may(self, members: Collection[Any]) -> bool:
        left = sum(member.health.serves and member.circuit.state is not CircuitState.OPEN for member in members) - 1
        return bool(left >= max(1, ceil(self.rules.min_fit * len(members))))

    def _open(self, circuit: Circuit, why: str, now: float) -> bool:
        circuit.step(_Seen.TRIPPED)
        circuit.times += 1
        circuit.why = why
        circuit.until = now + min(self.rules.base_s * circuit.times, self.rules.longest_s)
        circuit.in_row = 0
        return True

    def _close(self, circuit: Circuit, now: float) -> None:
        circuit.step(_Seen.WORKED)
        circuit.in_row = 0
        circuit.closed_at = now
