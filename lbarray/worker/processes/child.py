"""The worker process's end: serves on sockets that the node process opened, reports, and does as it is told."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure

from lbarray.errors import ArrayError
from lbarray.worker.processes.commands import (
    Changes,
    Configure,
    Followed,
    Listen,
    Measure,
    Pieces,
    Ready,
    Refused,
    Reload,
    Reopen,
    Report,
    Said,
    Stop,
    chunks,
)

__all__ = ["REPORT_S", "ChildEnd", "ChildFactory"]

#: Seconds between reports; a process that has sent none for much longer is hung.
REPORT_S = 0.5
#: Letters of one event, with its traceback: AMP takes 65,535 octets.
_TEXT_LIMIT = 12_000


class ChildEnd(amp.AMP):
    """Speaks with the node process. When that is gone, the worker ends as if it had been told to.

    :param start: begins to serve; :param stop: ends in order (a Deferred).
    :param report: what the node is told, ready for JSON. :param hear: takes what the node says of a back end.
    :param reload: reads certificates anew. :param reopen: opens logs anew.
    :param listen: takes a listening socket, with its address and port.
    :param configure: serves by another configuration from now on; raises ``ArrayError`` when it cannot.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        start: Callable[[], None],
        stop: Callable[[], Any],
        report: Callable[[], object],
        hear: Callable[[dict[str, Any]], None],
        reload: Callable[[], object],
        reopen: Callable[[], None],
        listen: Callable[[str, int, socket.socket], None],
        configure: Callable[[bytes], None],
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._start = start
        self._stop = stop
        self._report = report
        self._hear = hear
        self._reload = reload
        self._reopen = reopen
        self._listen = listen
        self._configure = configure
        self._pieces = Pieces()
        self._configuration = Pieces()
        self._stopping = False
        self._gone = False
        self._unsaid: list[dict[str, str]] = []
        self._reports = LoopingCall(self._send_report)
        self._reports.clock = reactor

    def connectionMade(self) -> None:
        super().connectionMade()
        unsaid, self._unsaid = self._unsaid, []
        for said in unsaid:
            self.callRemote(Said, **said)
        try:
            self._start()
        except ArrayError as error:
            self.callRemote(Refused, why=str(error))
            self._reactor.callLater(0.1, self._reactor.stop)
            return
        self.callRemote(Ready)
        self._reports.start(REPORT_S)

    def say(self, event: Any) -> None:
        """An event for the log (``ILogObserver``): what only interests a debugger stays here."""
        level = event.get("log_level", LogLevel.info)
        if level < LogLevel.info or self._gone:
            return
        failure = event.get("log_failure")
        text = formatEvent(event) + ("\n" + failure.getTraceback() if failure is not None else "")
        said = {"level": level.name, "namespace": str(event.get("log_namespace", "")), "text": text[:_TEXT_LIMIT]}
        if self.transport is None:
            self._unsaid.append(said)
        else:
            self.callRemote(Said, **said)

    def _send_report(self) -> None:
        for arguments in chunks(self._report()):
            self.callRemote(Report, **arguments)

    @Changes.responder
    def take_changes(self, piece: bytes, last: bool) -> dict[str, object]:
        for change in self._pieces.add(piece, last) or ():
            self._hear(change)
        return {}

    def tell(self, change: dict[str, Any]) -> None:
        """The node process should hear of this change of a back end."""
        if not self._gone:
            for arguments in chunks([change]):
                self.callRemote(Changes, **arguments)

    @Listen.responder
    def take_listener(self, address: str, port: int, listener: int) -> dict[str, object]:
        self._listen(address, port, socket.socket(fileno=listener))
        return {}

    @Configure.responder
    def take_configuration(self, piece: bytes, last: bool) -> dict[str, object]:
        blob = self._configuration.octets(piece, last)
        if blob is not None and not self._stopping:
            try:
                self._configure(blob)
            except Exception as error:
                if not isinstance(error, ArrayError):
                    self.log.failure("a configuration was not taken up")
                self.callRemote(Followed, why=str(error) or type(error).__name__)
            else:
                self.callRemote(Followed, why="")
        return {}

    @Measure.responder
    def take_measure(self) -> dict[str, object]:
        self._send_report()
        return {}

    @Stop.responder
    def take_stop(self) -> dict[str, object]:
        self._end()
        return {}

    @Reload.responder
    def take_reload(self) -> dict[str, object]:
        self._reload()
        return {}

    @Reopen.responder
    def take_reopen(self) -> dict[str, object]:
        self._reopen()
        return {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._gone = True
        if not self._stopping:
            self.log.warn("the node process is gone: this worker process ends")
        self._end()

    def _end(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        ended: Deferred[Any] = maybeDeferred(self._stop)
        ended.addErrback(lambda failure: self.log.failure("a worker process did not stop in order", failure))
        ended.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        if self._reports.running:
            self._reports.stop()
            if not self._gone:
                self._send_report()  # the last counters
        self._reactor.callLater(0.05, self._reactor.stop)


class ChildFactory(Factory):
    """Of the one end."""

    noisy = False

    def __init__(self, end: ChildEnd) -> None:
        self._end = end

    def buildProtocol(self, addr: object) -> ChildEnd:
        return self._end
