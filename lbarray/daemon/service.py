"""A node as the whole of a process, as twistd runs it. Embedded in another application, a node is none of this."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from lbarray.errors import ArrayError
from lbarray.node import NodeService
from lbarray.telemetry.logs import LogLines, json_line, text_line

__all__ = ["Daemon"]


class Daemon(NodeService):
    """A node with the process around it.

    :param log_to: a file instead of standard output; ``None``: twistd's own choice of log stands.
    """

    def __init__(self, *, log_to: str | None = None, **node: Any) -> None:
        super().__init__(**node)
        self._log_to = log_to

    def setServiceParent(self, parent: Any) -> None:
        if self._log_to is not None and isinstance(parent, Componentized):
            out: Any = sys.stdout if self._log_to in ("", "-") else LogFile.fromFullPath(self._log_to)
            line: Callable[[Any], str] = json_line if self.config.log.format == "json" else text_line
            parent.setComponent(ILogObserver, LogLines(out, line=line, least=self.config.log.level))
        super().setServiceParent(IServiceCollection(parent))

    def startService(self) -> None:
        super().startService()
        self.reactor.callWhenRunning(self._listen_to_signals)

    def _listen_to_signals(self) -> None:
        """SIGHUP, as ``systemctl reload`` sends it: take up the configuration file as it is now. SIGUSR1, as logrotate
        sends it: open the logs anew."""

        def reload() -> None:
            with contextlib.suppress(ArrayError):  # the log has it already
                self.configuring.reload()

        # A handler may run between any two instructions: the work is done in the reactor's own time.
        signal.signal(signal.SIGHUP, lambda number, frame: self.reactor.callFromThread(reload))
        before = signal.getsignal(signal.SIGUSR1)  # twistd's own, for its --logfile

        def reopen(number: int, frame: Any) -> None:
            if callable(before):
                before(number, frame)
            if self.worker is not None:
                self.reactor.callFromThread(self.worker.reopen_logs)

        signal.signal(signal.SIGUSR1, reopen)
