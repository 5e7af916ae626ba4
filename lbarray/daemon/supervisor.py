"""What systemd is told: that the node is ready, how it is, and that its reactor still turns (sd_notify(3))."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall

__all__ = ["Supervisor", "notify"]

STATUS_EVERY_S = 5.0


def notify(*lines: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send these assignments (``READY=1``); false where nobody listens."""
    place = environment.get("NOTIFY_SOCKET", "")
    if not place.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        try:
            out.sendto("\n".join(lines).encode(), "\0" + place[1:] if place[0] == "@" else place)
        except OSError:
            return False
    return True


def watchdog_s(environment: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds after which systemd takes us for stuck; ``None``: it does not look."""
    wanted = environment.get("WATCHDOG_PID")
    if wanted and wanted != str(os.getpid() if pid is None else pid):
        return None
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
    except ValueError:
        return None
    return seconds if seconds > 0 else None


class Supervisor(Service):
    """Tells systemd while the node runs.

    A reactor that stands still tells nothing: systemd then kills the process and starts it again. The VIPs have moved
    before, because the node's advertisements stopped with it: keep the watchdog longer than a takeover takes.

    :param status: one line for ``systemctl status``.
    """

    def __init__(self, *, clock: Any, status: Callable[[], str], environment: Mapping[str, str] = os.environ) -> None:
        self._status = status
        self._environment = environment
        self._watchdog_s = watchdog_s(environment)
        self._alive = LoopingCall(self._tell)
        self._alive.clock = clock

    def startService(self) -> None:
        super().startService()
        if notify("READY=1", f"STATUS={self._status()}", environment=self._environment):
            self._alive.start(min(STATUS_EVERY_S, (self._watchdog_s or STATUS_EVERY_S * 3) / 3), now=False)

    def _tell(self) -> None:
        notify("WATCHDOG=1", f"STATUS={self._status()}", environment=self._environment)

    def reloading(self) -> None:
        """A configuration is being taken up, in this turn of the reactor."""
        notify("STATUS=reloading", environment=self._environment)

    def stopService(self) -> None:
        super().stopService()
        if self._alive.running:
            # Still told while the node hands over: that may take longer than the watchdog waits.
            notify("STOPPING=1", "STATUS=handing over", environment=self._environment)

    def close(self) -> None:
        """Everything has ended."""
        if self._alive.running:
            self._alive.stop()
