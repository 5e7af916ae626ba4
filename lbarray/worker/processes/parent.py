"""The worker processes of a node: started, steered to, added up, replaced, and started again when they die.

The node process opens the listening sockets and keeps them: when a worker process dies, connections wait in its backlog
until the next one takes them, and a new generation serves on the very sockets of the old one. Another configuration
needs no new generation: processes take it up, with the sockets of new services, and keep every connection. Where it
wants more processes, these get their share once all are ready; those that it does not want get nobody new, and end.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.telemetry.counters import Counters
from lbarray.values import Load
from lbarray.worker.processes.counts import ConnectionCounts
from lbarray.worker.processes.groups import ListeningGroups, Offered, check_all
from lbarray.worker.processes.process import WorkerProcess
from lbarray.worker.processes.reports import Reports, row
from lbarray.worker.processes.said import SaidOnce
from lbarray.worker.processes.sums import add_counters

__all__ = ["WorkerProcesses"]

#: Seconds until a process that died is started again: doubled each time, back to the first after a while of health.
BACK_OFF_FIRST_S, BACK_OFF_LAST_S, HEALTHY_AFTER_S = 0.1, 10.0, 10.0
#: Seconds that a process has to get ready.
READY_S = 30.0
WATCH_S = 0.25
#: Seconds that whoever asks waits for processes to say how they are now.
MEASURE_S = 0.25
#: Processes that may be there at once, of all generations, and still count connections together.
MOST = 1024
#: Seconds for which a process that is not wanted any more still takes connections whose handshake had begun: a lost
#: packet is sent again after one second (RFC 6298 §2).
SETTLE_S = 3.0


class WorkerProcesses(Service):
    """In the node process, what :class:`lbarray.worker.service.WorkerService` is where it serves itself.

    :param count: processes of a generation, at least one.
    :param command: how one is started; see :class:`WorkerProcess`.
    :param blob: what a process is given to read.
    :param shared: what processes tell each other: :class:`lbarray.backends.service.BackendsService`, or what does as it
        does by ``snapshot``, ``subscribe`` and ``hear``.
    :param grace_s: how long the requests in hand may take when a process ends.
    :param watchdog_s: without a word for so long, a process is hung, and killed.
    :param changed: called when the node begins or ceases to serve as it should.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        count: int,
        command: Sequence[str],
        blob: bytes,
        offered: Sequence[Offered],
        shared: Any,
        grace_s: float,
        watchdog_s: float,
        counters: Counters,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._count = count
        self._command = tuple(command)
        self._blob = blob
        self._offered = tuple(offered)
        self._shared = shared
        self._unsubscribe: Callable[[], None] = lambda: None
        self._grace_s = grace_s
        self._watchdog_s = watchdog_s
        self._counters = counters
        self._changed = changed
        self._generation = 0
        self._sockets = ListeningGroups()
        self._steered = count
        self._processes: dict[int, WorkerProcess] = {}
        self._coming: dict[int, WorkerProcess] = {}
        self._leaving: set[WorkerProcess] = set()
        self._late: dict[WorkerProcess, Any] = {}
        self._back_off: dict[int, float] = {}
        self._served = False
        self._last_load = (reactor.seconds(), 0)
        self._ended: Deferred[None] | None = None
        self._reports = Reports(lambda: [*self._processes.values(), *self._leaving])
        self._said = SaidOnce()
        self._looked_at = reactor.seconds()
        self._telling: Any = None
        self._counts_fd = -1
        self._counts: ConnectionCounts | None = None
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    # Life

    def startService(self) -> None:
        """:raises SystemRefused: a port, a certificate or the interpreter is not to be had; nothing is started then."""
        if not os.access(self._command[0], os.X_OK):
            raise SystemRefused(
                f"start worker processes with {self._command[0]}",
                errno=errno.EACCES,
                advice="install Python and lbarray where the daemon's user may read, or set worker.processes = 0",
            )
        self._sockets.follow(self._offered, self._count)
        self._sockets.steer(self._count)
        super().startService()
        self._counts_fd = ConnectionCounts.memory(MOST)
        self._counts = ConnectionCounts(self._counts_fd)
        self._unsubscribe = self._shared.subscribe(self._tell_all)
        for place in range(self._count):
            self._start(place, self._processes)
        self._watch.start(WATCH_S, now=False)

    def _start(self, place: int, among: dict[int, WorkerProcess]) -> WorkerProcess:
        process = among[place] = WorkerProcess(
            reactor=self._reactor,
            place=place,
            generation=self._generation,
            command=self._command,
            blob=self._blob,
            counts=self._counts_fd,
            slot=self._counts.take() if self._counts is not None else -1,
            listeners=self._sockets.of(self._offered, place),
            on_ready=self._ready,
            on_report=self._reported,
            on_changes=self._heard,
            on_end=self._process_ended,
            on_followed=self._followed,
            hears=lambda process, namespace, text: self._said.new(
                process.place, namespace, text, self._reactor.seconds()
            ),
        )
        process.start()
        return process

    def stopService(self) -> Deferred[None]:
        """Accept nobody any more; fires when every process has ended."""
        super().stopService()
        self._unsubscribe()
        if self._watch.running:
            self._watch.stop()
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        settling = [process for process in self._leaving if not process.stopping]
        for process in [*self._processes.values(), *self._coming.values(), *settling]:
            if process.pid:
                self._leave(process)
        self._processes.clear()
        self._coming.clear()
        self._sockets.close()
        self._ended = Deferred()
        self._end_if_alone()
        return self._ended

    def _leave(self, process: WorkerProcess) -> None:
        """Let it end in order, or by force when its time is up."""
        self._leaving.add(process)
        process.stop()
        if (settling := self._late.pop(process, None)) is not None and settling.active():
            settling.cancel()
        self._late[process] = self._reactor.callLater(self._grace_s + 2.0, self._kill_late, process)

    def _kill_late(self, process: WorkerProcess) -> None:
        self._late.pop(process, None)
        if process in self._leaving:
            self._counters.add("worker_processes_ended", "killed_late")
            process.kill()

    def _end_if_alone(self) -> None:
        if self._ended is not None and not self._leaving and not self._ended.called:
            if self._counts is not None:
                self._counts.close()
                self._counts = None
                os.close(self._counts_fd)
            self._ended.callback(None)

    # What processes tell

    def _ready(self, process: WorkerProcess) -> None:
        process.tell_changes(self._shared.snapshot())
        self._take_over_if_ready()
        self._share_out()
        self._tell_change()

    def _reported(self, process: WorkerProcess, before: Mapping[str, Any]) -> None:
        add_counters(self._counters, process.report, before)

    def _heard(self, process: WorkerProcess, changes: list[dict[str, Any]]) -> None:
        """A process has seen something of the back ends: the node and the other processes take it up."""
        for change in changes:
            self._shared.hear(change)
        for other in self._processes.values():
            if other is not process:
                other.tell_changes(changes)

    def _tell_all(self, change: dict[str, Any]) -> None:
        for process in [*self._processes.values(), *self._coming.values(), *self._leaving]:
            process.tell_changes([change])

    def _process_ended(self, process: WorkerProcess, why: str) -> None:
        self._reports.gone(process)
        if self._counts is not None:
            self._counts.give_back(process.slot)
        if process in self._leaving:
            self._left(process, why)
            return
        if self._coming.get(process.place) is process:
            self._give_up_generation(why)
            return
        self._counters.add("worker_processes_ended", "crashed")
        if self._reactor.seconds() - process.started_at > HEALTHY_AFTER_S:
            self._back_off.pop(process.place, None)
        delay = self._back_off.get(process.place, BACK_OFF_FIRST_S)
        self._back_off[process.place] = min(BACK_OFF_LAST_S, 2 * delay)
        self.log.error(
            "worker process {place} ended ({why}): its connections are lost; the next one starts in {delay:g} s",
            place=process.place,
            why=why,
            delay=delay,
        )
        self._reactor.callLater(delay, self._start_again, process)
        self._tell_change()

    def _left(self, process: WorkerProcess, why: str) -> None:
        """One that was not wanted any more has ended, perhaps before it was told to."""
        self._leaving.discard(process)
        late = self._late.pop(process, None)
        crashed = late is not None and not process.stopping  # a generation given up is killed without a time
        if late is not None:
            late.cancel()
        self._counters.add("worker_processes_ended", "crashed" if crashed else "stopped")
        if crashed:
            self.log.error(
                "worker process {place} ended ({why}) with its last clients: their connections are lost",
                place=process.place,
                why=why,
            )
        self._trim()
        self._end_if_alone()

    def _start_again(self, process: WorkerProcess) -> None:
        if self.running and self._processes.get(process.place) is process:
            self._start(process.place, self._processes)

    def _look(self) -> None:
        """End who is hung, and give up what does not get ready."""
        now = self._reactor.seconds()
        if now - self._looked_at > 1.0:
            # It was us, or the whole machine, that stood still: what they have said waits to be read.
            for process in self._processes.values():
                process.heard_at = max(process.heard_at, now - self._watchdog_s / 2)
        self._looked_at = now
        for process in self._processes.values():
            allowed_s = self._watchdog_s if process.ready else max(READY_S, self._watchdog_s)
            if process.pid and now - process.heard_at > allowed_s:
                self._counters.add("worker_processes_hung")
                self.log.error(
                    "worker process {place} has said nothing for {silent:.1f} s: killed, another one takes its place",
                    place=process.place,
                    silent=now - process.heard_at,
                )
                process.heard_at = now
                process.kill()
        if any(not process.ready and now - process.started_at > READY_S for process in self._coming.values()):
            self._give_up_generation(f"not ready within {READY_S:g} s")

    def _tell_change(self) -> None:
        if self.serving != self._served:
            self._served = self.serving
            self._changed()

    @property
    def serving(self) -> bool:
        """At least half of the processes that get clients serve: fewer make these wait in backlogs nobody empties."""
        ready = sum(process.ready for place, process in self._processes.items() if place < self._steered)
        return 2 * ready >= self._steered

    # Another generation

    def replace(self) -> None:
        """Start a new generation, with the code and configuration that are there now. When all of it is ready, it takes
        over and the old one ends after its requests in hand; when it cannot, the old one goes on."""
        if self._coming:
            self._give_up_generation("another one was asked for")
        self._generation += 1
        for place in range(self._count):
            self._start(place, self._coming)

    def _take_over_if_ready(self) -> None:
        if not self._coming or not all(process.ready for process in self._coming.values()):
            return
        old, self._processes, self._coming = self._processes, self._coming, {}
        self._back_off.clear()
        for process in old.values():
            if process.pid:
                self._leave(process)
        self._counters.add("worker_generations", "taken_over")
        self.log.info("worker generation {generation} has taken over", generation=self._generation)

    def _give_up_generation(self, why: str) -> None:
        coming, self._coming = self._coming, {}
        for process in coming.values():
            if process.pid:
                self._leaving.add(process)
                process.kill()
        self._counters.add("worker_generations", "failed")
        self.log.error(
            "worker generation {generation} cannot serve ({why}); the one before goes on",
            generation=self._generation,
            why=why,
        )

    # Another configuration

    def reconfigure(
        self, *, count: int, blob: bytes, offered: Sequence[Offered], grace_s: float, watchdog_s: float
    ) -> None:
        """Serve these services, by this configuration and so many processes; those that stay keep their connections.
        Listening sockets of services that stay are kept.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        self._sockets.follow(offered, count)
        if self._telling is not None and self._telling.active():
            self._telling.cancel()  # the last one counts: no process ends for what is taken back in the same turn
        self._count = count
        self._offered = tuple(offered)
        self._blob = blob
        self._grace_s = grace_s
        self._watchdog_s = watchdog_s
        # When the whole node follows it: then the state of its back ends goes with it.
        self._telling = self._reactor.callLater(0, self._tell_configuration)

    def _tell_configuration(self) -> None:
        self._resize()
        snapshot = self._shared.snapshot()
        settling = [process for process in self._leaving if not process.stopping]
        for process in [*self._processes.values(), *self._coming.values(), *settling]:
            listeners = self._sockets.of(self._offered, process.place)
            process.configure(
                self._blob,
                [
                    (str(offered.service_id.address), offered.service_id.port, listener)
                    for offered, listener in zip(self._offered, listeners, strict=True)
                ],
            )
            process.tell_changes(snapshot)
        self._sockets.close_gone()

    def _resize(self) -> None:
        """Have as many processes as are wanted, of the generation that comes too."""
        if self._steered > self._count and not self._steer(self._count):
            self._count = self._steered  # who still gets clients has to stay
        for among in (self._processes, self._coming):
            for place in [place for place in among if place >= self._count]:
                self._retire(among.pop(place))
        for among in (self._processes, self._coming) if self._coming else (self._processes,):
            for place in range(self._count):
                if place not in among:
                    self._start(place, among)
        self._trim()
        self._take_over_if_ready()
        self._share_out()

    def _retire(self, process: WorkerProcess) -> None:
        """Nobody is steered to it any more: it ends when those have come who were on their way."""
        self._back_off.pop(process.place, None)
        if not process.pid:
            process = self._start(process.place, {})  # for those who wait in the backlog of one that died
        self._leaving.add(process)
        self._late[process] = self._reactor.callLater(SETTLE_S, self._leave, process)

    def _share_out(self) -> None:
        """New processes get their share when all of them are ready: a client is moved to another one only once."""
        wanted = [process for place, process in self._processes.items() if place >= self._steered]
        if wanted and all(process.ready for process in wanted) and self._steer(len(self._processes)):
            self.log.info("{count} worker processes share the clients now", count=self._steered)

    def _steer(self, places: int) -> bool:
        """Whether new clients now go to so many processes; otherwise they go where they went before."""
        try:
            self._sockets.steer(places)
        except SystemRefused as error:
            self.log.error(
                "new clients still go to {before} worker processes, not to {places}: {error}, and lbarray reload again",
                before=self._steered,
                places=places,
                error=error,
            )
            return False
        self._steered = places
        return True

    def _trim(self) -> None:
        """Close the sockets that no process is there for."""
        there = [*self._processes.values(), *self._coming.values(), *self._leaving]
        try:
            self._sockets.trim(max([self._count - 1, *(process.place for process in there)]) + 1)
        except SystemRefused as error:
            # They are closed, and the program from before does not choose them.
            self.log.error("the sockets of processes that ended are closed, but: {error}", error=error)

    def _followed(self, process: WorkerProcess, why: str) -> None:
        if not why:
            self._counters.add("worker_configurations", "taken_up")
            return
        if process in self._leaving:
            return  # it ends with what it has
        self._counters.add("worker_configurations", "refused")
        self.log.error(
            "worker process {place} cannot take up the configuration ({why}): new processes begin with it",
            place=process.place,
            why=why,
        )
        if not self._coming:
            self.replace()

    # As WorkerService

    def reload_certificates(self) -> dict[str, bool]:
        """Let every process read its certificates anew; which services use what is there now."""
        done = check_all(self._offered, self.log)
        for process in [*self._processes.values(), *self._coming.values()]:
            process.reload()
        return done

    def reopen_logs(self) -> None:
        """Let every process open its logs anew."""
        for process in [*self._processes.values(), *self._leaving]:
            process.reopen()

    def measure(self) -> Deferred[Any] | None:
        """Let processes say how they are now, for somebody who asks. Fires when they have, or have taken too long."""
        asked = [process.measure() for process in [*self._processes.values(), *self._leaving]]
        waiting = [each for each in asked if each is not None]
        if not waiting:
            return None
        return DeferredList(waiting, consumeErrors=True).addTimeout(MEASURE_S, self._reactor).addErrback(lambda _: None)

    @property
    def connections(self) -> int:
        """Clients' connections open now: as last heard, or counted in the memory that processes share."""
        return max(self._reports.connections, self._counts.total if self._counts is not None else 0)

    @property
    def requests_begun(self) -> int:
        """Requests since the start, as last heard."""
        return self._reports.requests_begun

    @property
    def memo_octets(self) -> int:
        """Memory of the results of rewriting that processes keep."""
        return self._reports.memo_octets

    def load(self) -> Load:
        """How busy the processes are; the rate is over the time since the last call. ``cpu`` is not known here."""
        now, count = self._reactor.seconds(), self.requests_begun
        then, before = self._last_load
        self._last_load = (now, count)
        rate = (count - before) / (now - then) if now > then else 0.0
        return Load(connections=self.connections, requests_per_s=max(0.0, rate))

    def status(self) -> dict[str, object]:
        """What the console shows, by service."""
        return self._reports.services(self._offered)

    def pools(self) -> dict[str, dict[str, dict[str, int]]]:
        """What the processes did with each back end, by pool and name."""
        return self._reports.pools()

    def balancing(self) -> dict[str, dict[str, int]]:
        """What the processes have in hand and waiting, by pool."""
        return self._reports.balancing()

    def processes_status(self) -> dict[str, object]:
        """The processes themselves."""
        now = self._reactor.seconds()
        by_role = {"serving": self._processes.values(), "coming": self._coming.values(), "leaving": self._leaving}
        rows = [row(process, role=role, now=now) for role, processes in by_role.items() for process in processes]
        return {"generation": self._generation, "processes": rows}
