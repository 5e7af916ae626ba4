"""What this node changed on the machine, and how to undo it, kept where a SIGKILL cannot reach.

One JSON file, replaced atomically. Each entry is written before the change and struck out after it is
undone, so that whatever happens in between is found at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs

from lbarray.errors import SystemRefused

__all__ = ["Journal", "Undo"]


@attrs.frozen
class Undo:
    """One change to take back.

    :ivar kind: ``address`` (arguments: interface, address/length), ``sysctl`` (name, value before)
        or ``classifier`` (interface, handle, priority).
    """

    kind: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.arguments)}"


class Journal:
    """The entries of one node.

    :param path: the file; its folder is made when first needed.
    :param undoers: for each kind, what takes it back; it must not mind when nothing is left to undo.
    """

    def __init__(self, path: Path, undoers: dict[str, Callable[..., None]]) -> None:
        self._path = path
        self._undoers = undoers
        self._entries: list[Undo] = self._read()

    def _read(self) -> list[Undo]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SystemRefused(f"read the journal {self._path}", errno=error.errno or 0) from None
        try:
            return [Undo(kind, tuple(arguments)) for kind, arguments in json.loads(text)]
        except (ValueError, TypeError):
            raise SystemRefused(
                f"read the journal {self._path}",
                detail="it is damaged",
                advice="look at it, take back what it names by hand (ip addr, tc), and remove it",
            ) from None

    def _write(self) -> None:
        text = json.dumps([[entry.kind, entry.arguments] for entry in self._entries])
        spare = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            spare.write_text(text)
            os.replace(spare, self._path)
        except OSError as error:
            raise SystemRefused(
                f"write the journal {self._path}",
                errno=error.errno or 0,
                advice="set array.state_dir to a folder that this user may write to",
            ) from None

    def pending(self) -> tuple[Undo, ...]:
        """What stands changed now, oldest first."""
        return tuple(self._entries)

    def record(self, undo: Undo) -> None:
        """About to change something that ``undo`` takes back. Recording it twice is recording it once."""
        if undo not in self._entries:
            self._entries.append(undo)
            self._write()

    def undo(self, undo: Undo) -> None:
        """Take one change back, if it stands.

        :raises SystemRefused: the kernel would not; the entry stays.
        """
        if undo in self._entries:
            self._undoers[undo.kind](*undo.arguments)
            self._entries.remove(undo)
            self._write()

    def undo_all(self, kind: str | None = None) -> tuple[Undo, ...]:
        """Take everything (of one kind) back, newest first. Returns what was taken back.

        :raises SystemRefused: the kernel would not; that entry and older ones stay.
        """
        undone = [entry for entry in reversed(self._entries) if kind in (None, entry.kind)]
        for entry in undone:
            self.undo(entry)
        return tuple(undone)
