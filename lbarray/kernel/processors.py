"""How busy this machine's processors are (``/proc/stat``)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ProcessorUse"]


class ProcessorUse:
    """The share of time in use between two readings."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._last = self._read()

    def _read(self) -> tuple[int, int]:
        """(all, idle) in clock ticks, over all processors."""
        ticks = [int(word) for word in self._stat.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    def since_last(self) -> float:
        """0.0 (idle) to 1.0 since the previous call; 0.0 when no tick has passed."""
        now = self._read()
        total, idle = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        return 0.0 if total <= 0 else min(1.0, max(0.0, 1.0 - idle / total))
