"""Counters: plain integers by name and label, added to on the hot path, read by the console."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Counters"]


class Counters:
    """Integers that only grow. ``name`` is snake_case, ``label`` a short stable word or ``""``.

    Reading never resets: whoever wants a rate keeps the last value.
    """

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], int] = {}

    def add(self, name: str, label: str = "", amount: int = 1) -> None:
        """Count ``amount`` more of ``name``, under ``label``."""
        key = (name, label)
        values = self._values
        values[key] = values.get(key, 0) + amount

    def get(self, name: str, label: str = "") -> int:
        """The value, 0 if never counted."""
        return self._values.get((name, label), 0)

    def total(self, name: str) -> int:
        """The sum of ``name`` over all its labels."""
        return sum(value for (key, _), value in self._values.items() if key == name)

    def by_label(self, name: str) -> dict[str, int]:
        """Every label of ``name`` with its value."""
        return {label: value for (key, label), value in sorted(self._values.items()) if key == name}

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        return iter([(name, label, value) for (name, label), value in sorted(self._values.items())])
