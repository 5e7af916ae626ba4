"""One worker process as the node process sees it: started, heard, watched, ended."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger, LogLevel
from twisted.protocols import amp
from twisted.python.failure import Failure

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
    pieces,
)

__all__ = ["WorkerProcess"]

#: Descriptors of the child: the control connection, its configuration, the counts of connections, then the listening
#: sockets.
CONTROL_FD, BLOB_FD, COUNTS_FD, FIRST_LISTENER_FD = 3, 4, 5, 6


class _ParentEnd(amp.AMP):
    def __init__(self, process: WorkerProcess) -> None:
        super().__init__()
        self._process = process
        self._reports = Pieces()
        self._changes = Pieces()

    @Ready.responder
    def ready(self) -> dict[str, object]:
        self._process.became_ready()
        return {}

    @Refused.responder
    def refused(self, why: str) -> dict[str, object]:
        self._process.refused = why
        return {}

    @Report.responder
    def report(self, piece: bytes, last: bool) -> dict[str, object]:
        value = self._reports.add(piece, last)
        if value is not None:
            self._process.reported(value)
        return {}

    @Said.responder
    def said(self, level: str, namespace: str, text: str) -> dict[str, object]:
        if self._process.hears(namespace, text):
            Logger(namespace=namespace).emit(
                LogLevel.levelWithName(level), "worker process {place}: {text}", place=self._process.place, text=text
            )
        return {}

    @Followed.responder
    def followed(self, why: str) -> dict[str, object]:
        self._process.followed(why)
        return {}

    @Changes.responder
    def changes(self, piece: bytes, last: bool) -> dict[str, object]:
        value = self._changes.add(piece, last)
        if value is not None:
            self._process.on_changes(self._process, value)
        return {}


class _Life(ProcessProtocol):
    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def processEnded(self, reason: Failure) -> None:
        self._process.ended(reason)


class WorkerProcess:
    """One process of one generation.

    :param command: what to run; it is told its place, the place of its count of connections, and the number of
        listening sockets, as its last arguments.
    :param blob: its configuration, read by the process from descriptor 4.
    :param counts: the memory of :class:`~lbarray.worker.processes.counts.ConnectionCounts`.
    :param slot: its place in that memory; -1 for none.
    :param listeners: its listening sockets, one for each service, from descriptor 6 on.
    :param on_ready: called with this when it serves. :param on_report: with (this, the report before).
    :param on_changes: with (this, changes of back ends that it saw). :param on_end: with (this, reason).
    :param on_followed: with (this, why it does not serve by its last configuration; empty when it does).
    :param hears: asked with (this, namespace, text) whether what it says belongs into the log.
    :ivar report: the last one; empty before the first.
    :ivar heard_at: when it was last heard, in the reactor's seconds.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        place: int,
        generation: int,
        command: Sequence[str],
        blob: bytes,
        counts: int,
        slot: int,
        listeners: Sequence[socket.socket],
        on_ready: Callable[[WorkerProcess], None],
        on_report: Callable[[WorkerProcess, Mapping[str, Any]], None],
        on_changes: Callable[[WorkerProcess, list[dict[str, Any]]], None],
        on_end: Callable[[WorkerProcess, str], None],
        on_followed: Callable[[WorkerProcess, str], None],
        hears: Callable[[WorkerProcess, str, str], bool],
    ) -> None:
        self.place = place
        self.slot = slot
        self.generation = generation
        self.report: Mapping[str, Any] = {}
        self.refused = ""
        self.ready = False
        self.stopping = False
        self.started_at = self.heard_at = reactor.seconds()
        self._reactor = reactor
        self._command = tuple(command)
        self._blob = blob
        self._listeners = tuple(listeners)
        self._on_ready = on_ready
        self._on_report = on_report
        self._on_end = on_end
        self._on_followed = on_followed
        self._hears = hears
        self._counts = counts
        self._lent: list[int] = []
        self.on_changes = on_changes
        self._control: _ParentEnd | None = None
        self._transport: Any = None

    @property
    def pid(self) -> int:
        """Its number, 0 when it does not run."""
        return int(self._transport.pid or 0) if self._transport is not None else 0

    @property
    def accepted(self) -> int:
        """Clients' connections so far, as last reported."""
        return sum(service.get("accepted", 0) for service in self.report.get("services", {}).values())

    def start(self) -> None:
        """Start it; when the system refuses that, it has ended at once."""
        ours, theirs = socket.socketpair()
        blob = os.memfd_create("lbarray-configuration")
        try:
            os.write(blob, self._blob)
            os.lseek(blob, 0, os.SEEK_SET)
            ours.setblocking(False)
            descriptors = {0: 0, 1: 1, 2: 2, CONTROL_FD: theirs.fileno(), BLOB_FD: blob}
            descriptors[COUNTS_FD] = self._counts
            for number, listener in enumerate(self._listeners):
                descriptors[FIRST_LISTENER_FD + number] = listener.fileno()
            self._control = _ParentEnd(self)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Once(self._control))
            self._transport = self._reactor.spawnProcess(
                _Life(self),
                self._command[0],
                [*self._command, str(self.place), str(self.slot), str(len(self._listeners))],
                env=None,
                childFDs=descriptors,
            )
        except OSError as error:
            self._reactor.callLater(0, self._on_end, self, f"it could not be started: {error}")
        finally:
            ours.close()
            theirs.close()
            os.close(blob)

    # Heard

    def became_ready(self) -> None:
        """It serves."""
        self.ready = True
        self.heard_at = self._reactor.seconds()
        self._on_ready(self)

    def reported(self, report: Mapping[str, Any]) -> None:
        """It said how it is."""
        self.heard_at = self._reactor.seconds()
        before, self.report = self.report, report
        self._on_report(self, before)

    def hears(self, namespace: str, text: str) -> bool:
        """Whether what it says is for the log."""
        return self._hears(self, namespace, text)

    def followed(self, why: str) -> None:
        """It serves by its last configuration, or cannot."""
        self._take_back()
        self._on_followed(self, why)

    def _take_back(self) -> None:
        lent, self._lent = self._lent, []
        for fd in lent:
            os.close(fd)

    def ended(self, reason: Failure) -> None:
        """It has gone."""
        self.ready = False
        self._take_back()
        self._transport = None
        self._on_end(self, self.refused or _why(reason))

    # Told

    @property
    def _hearing(self) -> _ParentEnd | None:
        """Our end of the conversation, while there is one."""
        there = self._transport is not None and self._control is not None and self._control.transport is not None
        return self._control if there else None

    def tell(self, command: type[amp.Command]) -> None:
        """Say something without arguments, if it can be heard."""
        if (control := self._hearing) is not None:
            control.callRemote(command)

    def tell_changes(self, changes: object) -> None:
        """Say what has changed of the back ends."""
        if (control := self._hearing) is not None:
            for arguments in chunks(changes):
                control.callRemote(Changes, **arguments)

    def configure(self, blob: bytes, listeners: Sequence[tuple[str, int, socket.socket]]) -> None:
        """Serve by another configuration, on these sockets too, each with its address and port."""
        self._blob = blob
        if (control := self._hearing) is None:
            return
        for address, port, listener in listeners:
            # Sent in the reactor's own time: until then nobody else may close it.
            fd = os.dup(listener.fileno())
            self._lent.append(fd)
            control.callRemote(Listen, address=address, port=port, listener=fd)
        for arguments in pieces(blob):
            control.callRemote(Configure, **arguments)

    def measure(self) -> Deferred[Any] | None:
        """Ask for a report; fires when it has come, or with an error when it cannot come any more."""
        control = self._hearing
        if control is None or not self.ready:
            return None
        asked: Deferred[Any] = control.callRemote(Measure)
        return asked

    def stop(self) -> None:
        """Accept nobody any more, end in order."""
        if not self.stopping:
            self.stopping = True
            self.tell(Stop)

    def reload(self) -> None:
        """Read the certificates anew."""
        self.tell(Reload)

    def reopen(self) -> None:
        """Open the logs anew."""
        self.tell(Reopen)

    def kill(self) -> None:
        """End it now."""
        if self._transport is not None:
            try:
                self._transport.signalProcess("KILL")
            except ProcessExitedAlready:
                pass


class _Once(Factory):
    noisy = False

    def __init__(self, protocol: amp.AMP) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> amp.AMP:
        return self._protocol


def _why(reason: Failure) -> str:
    if reason.check(ProcessDone):
        return "exit 0"
    error = reason.value
    if isinstance(error, ProcessTerminated):
        return f"signal {error.signal}" if error.signal else f"exit {error.exitCode}"
    return str(error)
