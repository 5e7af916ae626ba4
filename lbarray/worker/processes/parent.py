"""The worker processes of a node: started, steered to, added up, replaced, and started again when they die.

The node process opens the listening sockets and keeps them: when a worker process dies, connections wait in its backlog
until the next one takes them, and a new generation serves on the very sockets of the old one.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.telemetry.counters import Counters
from lbarray.values import Load, ServiceId
from lbarray.worker.listeners import listening_socket
from lbarray.worker.processes.process import WorkerProcess
from lbarray.worker.processes.sums import add_counters, sum_balancing, sum_pools, sum_services
from lbarray.worker.steering import steer_by_client

__all__ = ["Offered", "WorkerProcesses"]

#: Seconds until a process that died is started again: doubled each time, back to the first after a while of health.
BACK_OFF_FIRST_S, BACK_OFF_LAST_S, HEALTHY_AFTER_S = 0.1, 10.0, 10.0
#: Seconds without a word after which a process is hung, and killed.
HUNG_S = 10.0
#: Seconds that a new generation has to get ready.
READY_S = 30.0
WATCH_S = 0.25


@attrs.frozen
class Offered:
    """A service as the node process needs to know it.

    :ivar prefix: bits of the client's address that choose the process; ``None``: the whole connection chooses.
    :ivar mss: octets that a client may send in one TCP segment; 0: as the interface allows.
    :ivar certificates: reads and checks its certificates (``SystemRefused``); called before processes are started.
    """

    name: str
    service_id: ServiceId
    prefix: int | None
    mss: int = 0
    check: Callable[[], object] = lambda: None


class WorkerProcesses(Service):
    """In the node process, what :class:`lbarray.worker.service.WorkerService` is where it serves itself.

    :param count: processes of a generation.
    :param command: how one is started; see :class:`WorkerProcess`.
    :param blob: what a process is given to read.
    :param backends: :class:`lbarray.backends.service.BackendsService`, by its ``snapshot``, ``subscribe`` and ``hear``.
    :param grace_s: how long the requests in hand may take when a process ends.
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
        backends: Any,
        grace_s: float,
        counters: Counters,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._count = count
        self._command = tuple(command)
        self._blob = blob
        self._offered = tuple(offered)
        self._backends = backends
        self._unsubscribe: Callable[[], None] = lambda: None
        self._grace_s = grace_s
        self._counters = counters
        self._changed = changed
        self._generation = 0
        self._sockets: dict[ServiceId, list[socket.socket]] = {}
        self._processes: dict[int, WorkerProcess] = {}
        self._coming: dict[int, WorkerProcess] = {}
        self._leaving: set[WorkerProcess] = set()
        self._back_off: dict[int, float] = {}
        self._served = False
        self._last_load = (reactor.seconds(), 0)
        self._ended: Deferred[None] | None = None
        self._gone = {"requests": 0, "accepted": 0}
        self._watch = LoopingCall(self._look)
        self._watch.clock = reactor

    # Life

    def startService(self) -> None:
        """:raises SystemRefused: a port or a certificate is not to be had; nothing is started then."""
        for offered in self._offered:
            offered.check()
        try:
            for offered in self._offered:
                self._sockets[offered.service_id] = self._open(offered)
        except Exception:
            self._close_sockets()
            raise
        super().startService()
        self._unsubscribe = self._backends.subscribe(self._tell_all)
        for place in range(self._count):
            self._start(place, self._processes)
        self._watch.start(WATCH_S, now=False)

    def _open(self, offered: Offered) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        try:
            for _ in range(self._count):
                place = offered.service_id
                sockets.append(listening_socket(str(place.address), place.port, reuse_port=True, mss=offered.mss))
            self._steer(offered, sockets)
        except Exception:
            for each in sockets:
                each.close()
            raise
        return sockets

    @staticmethod
    def _steer(offered: Offered, sockets: Sequence[socket.socket]) -> None:
        if offered.prefix is not None and len(sockets) > 1:
            steer_by_client(sockets[0], len(sockets), prefix=offered.prefix)

    def _close_sockets(self) -> None:
        for sockets in self._sockets.values():
            for each in sockets:
                each.close()
        self._sockets.clear()

    def _start(self, place: int, among: dict[int, WorkerProcess]) -> None:
        process = among[place] = WorkerProcess(
            reactor=self._reactor,
            place=place,
            generation=self._generation,
            command=self._command,
            blob=self._blob,
            listeners=[self._sockets[offered.service_id][place] for offered in self._offered],
            on_ready=self._ready,
            on_report=self._reported,
            on_changes=self._heard,
            on_end=self._process_ended,
        )
        process.start()

    def stopService(self) -> Deferred[None]:
        """Accept nobody any more; fires when every process has ended."""
        super().stopService()
        self._unsubscribe()
        if self._watch.running:
            self._watch.stop()
        for process in [*self._processes.values(), *self._coming.values()]:
            self._leave(process)
        self._processes.clear()
        self._coming.clear()
        self._close_sockets()
        self._ended = Deferred()
        self._end_if_alone()
        return self._ended

    def _leave(self, process: WorkerProcess) -> None:
        """Let it end in order, or by force when its time is up."""
        self._leaving.add(process)
        process.stop()
        self._reactor.callLater(self._grace_s + 2.0, self._kill_late, process)

    def _kill_late(self, process: WorkerProcess) -> None:
        if process in self._leaving:
            self._counters.add("worker_processes_ended", "killed_late")
            process.kill()

    def _end_if_alone(self) -> None:
        if self._ended is not None and not self._leaving and not self._ended.called:
            self._ended.callback(None)

    # What processes tell

    def _ready(self, process: WorkerProcess) -> None:
        process.tell_changes(self._backends.snapshot())
        if process in self._coming.values() and all(each.ready for each in self._coming.values()):
            self._take_over()
        self._tell_change()

    def _reported(self, process: WorkerProcess, before: Mapping[str, Any]) -> None:
        add_counters(self._counters, process.report, before)

    def _heard(self, process: WorkerProcess, changes: list[dict[str, Any]]) -> None:
        """A process has seen something of the back ends: the node and the other processes take it up."""
        for change in changes:
            self._backends.hear(change)
        for other in self._processes.values():
            if other is not process:
                other.tell_changes(changes)

    def _tell_all(self, change: dict[str, Any]) -> None:
        for process in [*self._processes.values(), *self._coming.values(), *self._leaving]:
            process.tell_changes([change])

    def _process_ended(self, process: WorkerProcess, why: str) -> None:
        for key in self._gone:
            self._gone[key] += sum(service.get(key, 0) for service in process.report.get("services", {}).values())
        if process in self._leaving:
            self._leaving.discard(process)
            self._counters.add("worker_processes_ended", "stopped")
            self._end_if_alone()
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

    def _start_again(self, process: WorkerProcess) -> None:
        if self.running and self._processes.get(process.place) is process:
            self._start(process.place, self._processes)

    def _look(self) -> None:
        """End who is hung, and give up what does not get ready."""
        now = self._reactor.seconds()
        for process in self._processes.values():
            if process.ready and now - process.heard_at > HUNG_S:
                self._counters.add("worker_processes_hung")
                self.log.error("worker process {place} is hung: killed", place=process.place)
                process.heard_at = now
                process.kill()
        if self._coming and now - min(process.started_at for process in self._coming.values()) > READY_S:
            self._give_up_generation(f"not ready within {READY_S:g} s")

    def _tell_change(self) -> None:
        if self.serving != self._served:
            self._served = self.serving
            self._changed()

    @property
    def serving(self) -> bool:
        """At least half of the processes serve: fewer make clients wait in backlogs nobody empties."""
        return 2 * sum(process.ready for process in self._processes.values()) >= self._count

    # Another generation

    def replace(self) -> None:
        """Start a new generation, with the code and configuration that are there now. When all of it is ready, it takes
        over and the old one ends after its requests in hand; when it cannot, the old one goes on."""
        if self._coming:
            self._give_up_generation("another one was asked for")
        self._generation += 1
        for place in range(self._count):
            self._start(place, self._coming)

    def _take_over(self) -> None:
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

    def reconfigure(self, *, blob: bytes, offered: Sequence[Offered], grace_s: float) -> None:
        """Serve these services by a new generation; listening sockets of services that stay are kept.

        :raises SystemRefused: a port or a certificate is not to be had; nothing has changed then.
        """
        for each in offered:
            each.check()
        opened: dict[ServiceId, list[socket.socket]] = {}
        try:
            for each in offered:
                if each.service_id not in self._sockets:
                    opened[each.service_id] = self._open(each)
        except Exception:
            for sockets in opened.values():
                for listener in sockets:
                    listener.close()
            raise
        self._sockets.update(opened)
        wanted = {each.service_id for each in offered}
        for gone in [service_id for service_id in self._sockets if service_id not in wanted]:
            for listener in self._sockets.pop(gone):
                listener.close()
        for each in offered:
            self._steer(each, self._sockets[each.service_id])
        self._offered = tuple(offered)
        self._blob = blob
        self._grace_s = grace_s
        self.replace()

    # As WorkerService

    def reload_certificates(self) -> dict[str, bool]:
        """Let every process read its certificates anew."""
        for process in self._processes.values():
            process.reload()
        return dict.fromkeys((offered.name for offered in self._offered), True)

    def reopen_logs(self) -> None:
        """Let every process open its logs anew."""
        for process in [*self._processes.values(), *self._leaving]:
            process.reopen()

    @property
    def _reports(self) -> list[Mapping[str, Any]]:
        return [process.report for process in [*self._processes.values(), *self._leaving] if process.report]

    @property
    def connections(self) -> int:
        """Clients' connections open now, as last heard."""
        return sum(report.get("connections", 0) for report in self._reports)

    @property
    def requests_begun(self) -> int:
        """Requests since the start, as last heard."""
        now: int = sum(
            service.get("requests", 0) for report in self._reports for service in report.get("services", {}).values()
        )
        return self._gone["requests"] + now

    def load(self) -> Load:
        """How busy the processes are; the rate is over the time since the last call. ``cpu`` is not known here."""
        now, count = self._reactor.seconds(), self.requests_begun
        then, before = self._last_load
        self._last_load = (now, count)
        rate = (count - before) / (now - then) if now > then else 0.0
        return Load(connections=self.connections, requests_per_s=max(0.0, rate))

    def status(self) -> dict[str, object]:
        """What the console shows, by service."""
        return sum_services(self._reports)

    def pools(self) -> dict[str, dict[str, dict[str, int]]]:
        """What the processes did with each back end, by pool and name."""
        return sum_pools(self._reports)

    def balancing(self) -> dict[str, dict[str, int]]:
        """What the processes have in hand and waiting, by pool."""
        return sum_balancing(self._reports)

    def processes_status(self) -> dict[str, object]:
        """The processes themselves."""
        return {
            "generation": self._generation,
            "processes": [
                {
                    "place": process.place,
                    "pid": process.pid,
                    "generation": process.generation,
                    "ready": process.ready,
                    "up_s": round(self._reactor.seconds() - process.started_at, 1),
                    "connections": process.report.get("connections", 0),
                    "leaving": process in self._leaving,
                }
                for process in [*self._processes.values(), *self._coming.values(), *self._leaving]
            ],
        }
