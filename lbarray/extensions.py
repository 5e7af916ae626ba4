"""Parts in C that cannot be used: one that is not there is well, for then no compiler was. One that is there and does
not fit makes everything slower, so a node says it when it starts."""

from __future__ import annotations

import importlib.util

__all__ = ["not_used", "stale"]

_stale: dict[str, str] = {}


def not_used(name: str, error: Exception) -> None:
    """The module of this full name was wanted; it cannot be imported, or takes something else than it is given."""
    found = importlib.util.find_spec(name)
    if found is not None and found.origin is not None:
        _stale[name] = (
            f"{found.origin} was compiled from another source than this program is ({error}): "
            "slower code does its work. Run make setup, or install lbarray again"
        )


def stale() -> list[str]:
    """For an operator: each file that is there in vain, and what to do."""
    return list(_stale.values())
