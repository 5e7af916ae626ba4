"""Counters: plain integers by name and label, added to on the hot path, read by the console."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Counters"]


class Tally(Protocol):
    """What counts on its own, cheaper than :meth:`Counters.add` does, and hands over when somebody looks."""

    def hand_over(self) -> None:
        """Add what was counted since the last time."""


T = TypeVar("T", bound=Tally)


class Counters:
    """Integers that only grow. ``name`` is snake_case, ``label`` a short stable word or ``""``.

    Reading never resets: whoever wants a rate keeps the last value.
    """

    __slots__ = ("_tallies", "_values")

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], int] = {}
        self._tallies: dict[Hashable, Tally] = {}

    def tally(self, key: Hashable, make: Callable[[], T]) -> T:
        """The one of this ``key``, which hands over before anything is read; made now if there is none."""
        found = self._tallies.get(key)
        if found is None:
            found = self._tallies[key] = make()
        return found  # type: ignore[return-value]  # whoever asks for a key knows what it names

    def _read(self) -> dict[tuple[str, str], int]:
        for tally in self._tallies.values():
            tally.hand_over()
        return self._values

    def add(self, name: str, label: str = "", amount: int = 1) -> None:
        """Count ``amount`` more of ``name``, under ``label``."""
        key = (name, label)
        values = self._values
        values[key] = values.get(key, 0) + amount

    def get(self, name: str, label: str = "") -> int:
        """The value, 0 if never counted."""
        return self._read().get((name, label), 0)

    def total(self, name: str) -> int:
        """The sum of ``name`` over all its labels."""
        return sum(value for (key, _), value in self._read().items() if key == name)

    def by_label(self, name: str) -> dict[str, int]:
        """Every label of ``name`` with its value."""
        return {label: value for (key, label), value in sorted(self._read().items()) if key == name}

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        return iter([(name, label, value) for (name, label), value in sorted(self._read().items())])
