"""Fields as lines, the way they are sent, and as pairs: most are passed on without anybody asking for a pair."""

from __future__ import annotations

from collections.abc import Iterable

from lbarray.extensions import not_used

__all__ = ["Fields", "fields_in_python", "fields_of", "lines_of"]

Fields = list[tuple[bytes, bytes]]


def fields_in_python(lines: bytes) -> Fields:
    """What :func:`fields_of` does, where no compiler was."""
    found = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        found.append((name, value))
    return found


try:
    from lbarray.http._heads import fields as fields_of
except ImportError as error:
    not_used("lbarray.http._heads", error)
    fields_of = fields_in_python


def lines_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """``Name: value`` line by line, each with its end."""
    parts: list[bytes] = []
    add = parts.extend
    for name, value in fields:
        add((name, b": ", value, b"\r\n"))
    return b"".join(parts)
