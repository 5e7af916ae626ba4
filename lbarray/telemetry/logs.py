"""How the daemon's log looks: a line for a person, or a JSON object for a program; one for each event."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Any, Final

from twisted.logger import ILogObserver, LogLevel, formatEvent
from zope.interface import implementer

from lbarray.telemetry.events import room_of

__all__ = ["LogLines", "json_line", "text_line"]

#: sd-daemon(3): what the journal sorts by.
_PRIORITY: Final = {"debug": 7, "info": 6, "warn": 4, "error": 3, "critical": 2}


def _time(event: Any) -> str:
    at = datetime.fromtimestamp(event.get("log_time", 0.0), UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _trace(event: Any) -> str:
    failure = event.get("log_failure")
    return str(failure.getTraceback()) if failure is not None else ""


def text_line(event: Any) -> str:
    """``2026-01-31T12:00:00.123Z warn backends: back end … is down``; what follows a line break is indented."""
    level = event.get("log_level", LogLevel.info).name
    room = room_of(event) or str(event.get("log_namespace", "")).rpartition(".")[2] or "-"
    text = "\n  ".join((formatEvent(event) + "\n" + _trace(event)).strip().splitlines())
    return f"{_time(event)} {level} {room}: {text}"


def json_line(event: Any) -> str:
    """One object: ``at``, ``level``, ``room``, ``text``, and under ``with`` the event's own values."""
    values = {
        key: value if isinstance(value, int | float | bool | None) else str(value)
        for key, value in event.items()
        if not key.startswith("log_") and key not in ("system", "time", "isError", "message", "format", "logLevel")
    }
    line = {
        "at": _time(event),
        "level": event.get("log_level", LogLevel.info).name,
        "room": room_of(event) or str(event.get("log_namespace", "")),
        "text": formatEvent(event),
    }
    if trace := _trace(event):
        line["traceback"] = trace
    return json.dumps(line | ({"with": values} if values else {}), ensure_ascii=False, default=str)


@implementer(ILogObserver)
class LogLines:
    """Writes to ``out``. Of others than lbarray only warnings and worse are of interest to an operator.

    :param least: the lowest level that is written.
    :param journal: begin each line with its priority, as systemd's journal reads it.
    """

    def __init__(
        self, out: IO[str], *, line: Callable[[Any], str] = text_line, least: str = "info", journal: bool | None = None
    ) -> None:
        self._out = out
        self._line = line
        self._least = LogLevel.levelWithName(least)
        self._journal = "JOURNAL_STREAM" in os.environ if journal is None else journal

    def follow(self, *, line: Callable[[Any], str], least: str) -> None:
        """Look like this from now on."""
        self._line = line
        self._least = LogLevel.levelWithName(least)

    def __call__(self, event: Any) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < (self._least if room_of(event) else max(self._least, LogLevel.warn)):
            return
        line = self._line(event)
        if self._journal:
            line = f"<{_PRIORITY[level.name]}>{line}"
        self._out.write(line + "\n")
        self._out.flush()
