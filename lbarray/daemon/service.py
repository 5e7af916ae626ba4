"""A node as the whole of a process, as twistd runs it. Embedded in another application, a node is none of this."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IServiceCollection
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from lbarray.config.model import Config
from lbarray.daemon.privileges import CAPABILITIES, STANDALONE, become
from lbarray.daemon.supervisor import Supervisor
from lbarray.errors import ArrayError, SystemRefused
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
        self._supervisor = Supervisor(clock=self.reactor, status=lambda: summary(self.view.status()))

    def setServiceParent(self, parent: Any) -> None:
        if self._log_to is not None and isinstance(parent, Componentized):
            out: Any = sys.stdout if self._log_to in ("", "-") else LogFile.fromFullPath(self._log_to)
            lines = LogLines(out, **_log_settings(self.config))
            parent.setComponent(ILogObserver, lines)
            self.configuring.subscribe(lambda config: lines.follow(**_log_settings(config)))
        super().setServiceParent(IServiceCollection(parent))

    def startService(self) -> None:
        try:
            self._give_up_root()
        except SystemRefused as error:
            self.log.critical("node {name} cannot start: {error}", name=self.node_name, error=error)
            raise SystemExit(1) from None
        super().startService()
        self.reactor.callWhenRunning(self._begun)

    def _give_up_root(self) -> None:
        """:raises SystemRefused: it cannot be."""
        user = self.config.process.user
        if user is None:
            return
        if os.geteuid() != 0:
            self.log.debug("not root: process.user is not used")
            return
        keep = STANDALONE if self.config.standalone else tuple(CAPABILITIES)
        become(user, keep, own=[self.config.array.state_dir])
        self.log.info("running as {user} with {capabilities}", user=user, capabilities=", ".join(keep))

    def _begun(self) -> None:
        """SIGHUP, as ``systemctl reload`` sends it, means: take up the configuration file as it is now. SIGUSR1, as
        logrotate sends it: open the logs anew."""

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
        self._supervisor.startService()

    def stopService(self) -> Deferred[Any]:
        self._supervisor.stopService()
        return super().stopService().addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._supervisor.close()
        return result


def _log_settings(config: Config) -> dict[str, Any]:
    return {"line": json_line if config.log.format == "json" else text_line, "least": config.log.level}


def summary(status: Mapping[str, Any]) -> str:
    """One line for ``systemctl status``."""
    said = []
    members = (status.get("membership") or {}).get("members") or {}
    if members:
        missing = (status.get("membership") or {}).get("missing") or ()
        scheduler = "SCHEDULER" in (members.get(status["node"], {}).get("roles") or ())
        said += ["scheduler" if scheduler else "worker", f"{len(members)} of {len(members) + len(missing)} nodes"]
    services = status.get("services") or {}
    said.append(f"{sum(service.get('connections', 0) for service in services.values())} connections")
    backends = [member for pool in (status.get("pools") or {}).values() for member in pool.values()]
    if backends:
        well = sum(member.get("state") in ("up", "unchecked") for member in backends)
        said.append(f"{well} of {len(backends)} back ends serve")
    version = (status.get("configuration") or {}).get("version")
    return ", ".join(said) + (f"; configuration {version}" if version else "")
