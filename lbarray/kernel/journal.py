"""What this node changed on the machine, and how to undo it, kept where a SIGKILL cannot reach.

One JSON file, replaced atomically. Each entry is written before the change and struck out after it is
undone, so that whatever happens in between is found at the next start.
"""

from __future__ import annotations

import fcntl
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
        or ``packet-program`` (interface, how it is attached).
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
        self._lock = -1
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
            raise self._unwritable(self._path, error) from None

    def lock(self) -> None:
        """Be the only process that changes and undoes, until the process ends or :meth:`unlock`.

        :raises SystemRefused: another one is; without this a second start would undo what the first one stands on.
        """
        path = self._path.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unwritable(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise SystemRefused(
                f"work on {self._path}",
                detail=f"process {holder} of the same node runs already",
                advice=f"stop it first: kill {holder}; or give this node its own array.state_dir",
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._lock = descriptor
        self._entries = self._read()

    def unlock(self) -> None:
        """Let another process work on it. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @staticmethod
    def _unwritable(path: Path, error: OSError) -> SystemRefused:
        return SystemRefused(
            f"write {path}",
            errno=error.errno or 0,
            advice="set array.state_dir to a folder that this user may write to",
        )

    def pending(self) -> tuple[Undo, ...]:
        """What stands changed now, oldest first."""
        return tuple(self._entries)

    def record(self, undo: Undo) -> None:
        """About to change something that ``undo`` takes back. Recording it twice is recording it once."""
        if undo not in self._entries:
            self._entries.append(undo)
            self._write()

    def forget(self, undo: Undo) -> None:
        """What was recorded has not been done after all."""
        if undo in self._entries:
            self._entries.remove(undo)
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
