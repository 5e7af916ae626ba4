"""Which certificate for which name a client asks for (server_name, RFC 6066 §3; wildcards, RFC 9525 §6.3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["NameTable", "covers", "normal_name"]

Chosen = TypeVar("Chosen")


def normal_name(name: str) -> str:
    """A host name as it is compared: lower case, without the root's dot."""
    return name.rstrip(".").lower()


def covers(pattern: str, name: str) -> bool:
    """Does a certificate's name hold for ``name``? A wildcard is the whole first label and stands for one label."""
    pattern, name = normal_name(pattern), normal_name(name)
    if pattern.startswith("*."):
        first, dot, rest = name.partition(".")
        return bool(first and dot) and rest == pattern[2:]
    return pattern == name


class NameTable(Generic[Chosen]):
    """Names to what was chosen for them: the exact name first, then its wildcard, then the default.

    :param entries: names (``shop.example``, ``*.example``) with what they choose; the first to claim a name has it.
    :param default: for other names and for clients that name none.
    :param strict: those get nothing instead.
    """

    def __init__(self, entries: Iterable[tuple[Iterable[str], Chosen]], *, default: Chosen, strict: bool) -> None:
        self._exact: dict[str, Chosen] = {}
        self._wildcard: dict[str, Chosen] = {}
        self._default = None if strict else default
        for names, chosen in entries:
            for name in map(normal_name, names):
                if name.startswith("*."):
                    self._wildcard.setdefault(name[2:], chosen)
                else:
                    self._exact.setdefault(name, chosen)

    def find(self, name: str | None) -> Chosen | None:
        """What this name gets; ``None`` for nothing."""
        if not name:
            return self._default
        name = normal_name(name)
        found = self._exact.get(name)
        if found is None:
            first, _, rest = name.partition(".")
            found = self._wildcard.get(rest) if first else None
        return self._default if found is None else found
