"""The node process's side of worker processes: real sockets and memory, processes that are not really there."""

from __future__ import annotations

import os
import select
import socket
import sys
from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.telemetry.counters import Counters
from lbarray.values import ServiceId
from lbarray.worker.processes.groups import Offered
from lbarray.worker.processes.parent import READY_S, SETTLE_S, WorkerProcesses
from lbarray.worker.processes.process import FIRST_LISTENER_FD
from tests.system.ports import free_ports

#: Nobody may change the program of a socket's group any more (socket(7)): the way to be refused it.
_SO_LOCK_FILTER = 44


class Control(StringTransport):
    """Keeps what a process is told."""

    def sendFileDescriptor(self, fd: int) -> None:
        """It is a copy that the process would close."""


class Spawned:
    """A process that was asked for, as far as the node process can see it."""

    def __init__(self, pid: int, control: Any, life: Any, place: int, fds: dict[int, int]) -> None:
        self.pid, self.control, self.life, self.place, self.fds = pid, control, life, place, fds

    def signalProcess(self, signal: str) -> None:
        self.end(9)

    def end(self, signal: int) -> None:
        self.pid = 0
        self.life.processEnded(Failure(ProcessTerminated(signal=signal)))

    def told(self, command: bytes) -> bool:
        """Whether it was."""
        return b"_command" + len(command).to_bytes(2, "big") + command in self.control.transport.value()


class Machine(Clock):
    """A reactor that starts processes only in name."""

    def __init__(self) -> None:
        super().__init__()
        self.spawned: list[Spawned] = []

    def adoptStreamConnection(self, fd: int, family: int, factory: Any) -> None:
        self.control = factory.buildProtocol(None)
        self.control.makeConnection(Control())

    def spawnProcess(self, life: Any, executable: str, args: list[str], env: None, childFDs: dict[int, int]) -> Spawned:
        place = int(args[-3])
        self.spawned.append(Spawned(1000 + len(self.spawned), self.control, life, place, childFDs))
        return self.spawned[-1]


class Shared:
    """Back ends of which nothing is to be said."""

    def snapshot(self) -> list[object]:
        return []

    def subscribe(self, hear: object) -> Any:
        return lambda: None


class ParentTests(SynchronousTestCase):
    """Four processes that serve one service, steered by client."""

    def setUp(self) -> None:
        ports = free_ports(2)
        self.offered, self.other = (Offered(str(port), ServiceId(ip_address("127.0.0.1"), port), 32) for port in ports)
        self.machine, self.counters = Machine(), Counters()
        self.parent = WorkerProcesses(
            reactor=self.machine,
            count=4,
            command=[sys.executable],
            blob=b"",
            offered=[self.offered],
            shared=Shared(),
            grace_s=5.0,
            watchdog_s=1000.0,
            counters=self.counters,
        )
        self.parent.startService()
        self.addCleanup(self.stop)
        self.get_ready()

    def stop(self) -> None:
        if self.parent.running:
            stopped = self.parent.stopService()
            for process in self.machine.spawned:
                if process.pid:
                    process.end(15)
            self.successResultOf(stopped)

    def get_ready(self) -> None:
        for process in self.machine.spawned:
            if process.pid:
                process.control.ready()

    def want(self, count: int, *offered: Offered) -> None:
        self.parent.reconfigure(
            count=count, blob=b"new", offered=offered or [self.offered], grace_s=5.0, watchdog_s=1000.0
        )

    def roles(self) -> dict[str, list[int]]:
        """The places of those that run, by role."""
        found: dict[str, list[int]] = {}
        rows: Any = self.parent.processes_status()["processes"]
        for each in rows:
            if each["pid"]:
                found.setdefault(each["role"], []).append(each["place"])
        return {role: sorted(places) for role, places in found.items()}

    def lock(self, process: Spawned) -> None:
        """The kernel lets nobody steer the service any more."""
        with socket.socket(fileno=os.dup(process.fds[FIRST_LISTENER_FD])) as listener:
            listener.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)

    def backlog(self, process: Spawned) -> socket.socket:
        """The socket that the process was given."""
        listener = socket.socket(fileno=os.dup(process.fds[FIRST_LISTENER_FD]))
        self.addCleanup(listener.close)
        return listener

    def clients(self) -> int:
        """So many have connected, and wait."""
        port = self.offered.service_id.port
        for number in range(1, 41):
            client = socket.create_connection(("127.0.0.1", port), 5, source_address=(f"127.0.4.{number}", 0))
            self.addCleanup(client.close)
        return 40

    def test_taken_back(self) -> None:
        """Fewer processes that are taken back in the same turn end nobody; a service keeps its sockets."""
        self.offered = attrs.evolve(self.offered, prefix=None)  # then no socket is hidden behind the others
        self.want(4)
        self.machine.advance(0)
        sockets = [self.backlog(process) for process in self.machine.spawned]
        self.want(1, self.other)
        self.want(4)
        self.machine.advance(0)
        self.machine.advance(SETTLE_S)
        self.assertEqual(self.roles(), {"serving": [0, 1, 2, 3]})
        self.assertFalse(any(process.told(b"Stop") for process in self.machine.spawned))
        self.assertEqual(sum(waiting(each) for each in sockets), 0)
        made = self.clients()
        self.assertEqual(sum(waiting(each) for each in sockets), made)

    def test_gone(self) -> None:
        """A service that stays away is closed."""
        self.want(4, self.other)
        self.machine.advance(0)
        with self.assertRaises(ConnectionRefusedError):
            self.clients()

    def test_refused(self) -> None:
        """A configuration that is refused leaves the one before, of the same turn, as it was."""
        self.want(1)
        with socket.create_server(("127.0.0.1", 0)) as taken, self.assertRaises(SystemRefused):
            self.want(4, Offered("taken", ServiceId(ip_address("127.0.0.1"), taken.getsockname()[1]), 32))
        self.machine.advance(0)
        self.assertEqual(self.roles(), {"serving": [0], "leaving": [1, 2, 3]})
        self.assertTrue(self.machine.spawned[0].told(b"Configure"))

    def test_fewer_not_steered(self) -> None:
        """Where clients cannot be kept from processes these stay, and take up the configuration."""
        self.want(2)
        self.lock(self.machine.spawned[0])
        with capturedLogs() as said:
            self.machine.advance(0)
        self.assertIn("still go to 4 worker processes, not to 2: cannot steer", formatEvent(said[0]))
        self.assertEqual(self.roles(), {"serving": [0, 1, 2, 3]})
        self.assertTrue(all(process.told(b"Configure") for process in self.machine.spawned))

    def test_more_not_steered(self) -> None:
        """New processes that cannot be given clients do not count among those that serve."""
        self.want(6)
        self.lock(self.machine.spawned[0])
        self.machine.advance(0)
        with capturedLogs() as said:
            self.get_ready()
        self.assertIn("still go to 4 worker processes, not to 6: cannot steer", formatEvent(said[0]))
        self.assertTrue(self.parent.serving)
        for process in self.machine.spawned[:3]:
            process.end(9)
        self.assertFalse(self.parent.serving)

    def test_closed_not_steered(self) -> None:
        """A process that has ended is done with, though the kernel takes no program any more."""
        self.want(2)
        self.machine.advance(0)
        self.lock(self.machine.spawned[0])
        self.machine.advance(SETTLE_S)
        for process in self.machine.spawned[2:]:
            self.assertTrue(process.told(b"Stop"))
            process.end(15)
        self.assertEqual(self.counters.by_label("worker_processes_ended"), {"stopped": 2})
        self.assertEqual(len(self.machine.getDelayedCalls()), 1)  # to look after them

    def test_crash_on_the_way_out(self) -> None:
        """It is counted and told as one; a generation that is given up is not."""
        self.want(3)
        self.machine.advance(0)
        with capturedLogs() as said:
            self.machine.spawned[3].end(11)
        self.assertEqual(self.counters.by_label("worker_processes_ended"), {"crashed": 1})
        self.assertIn("worker process 3 ended (signal 11)", formatEvent(said[0]))
        self.parent.replace()
        self.machine.spawned[4].end(9)
        self.assertEqual(self.counters.by_label("worker_processes_ended"), {"crashed": 1, "stopped": 2})

    def test_down(self) -> None:
        """Who waits for a process that is down is served, though its place is not wanted any more."""
        made, died = self.clients(), self.machine.spawned[3]
        self.assertLess(waiting(self.backlog(self.machine.spawned[0])), made)
        died.end(11)
        self.want(3)
        self.machine.advance(0)
        again = self.machine.spawned[4]
        self.assertEqual((again.place, self.roles()), (3, {"serving": [0, 1, 2], "leaving": [3]}))
        again.control.ready()
        self.assertGreater(waiting(self.backlog(again)), 0)
        self.machine.advance(SETTLE_S)
        self.assertTrue(again.told(b"Stop"))
        again.end(15)
        self.assertEqual(self.counters.by_label("worker_processes_ended"), {"crashed": 1, "stopped": 1})
        self.assertEqual(len(self.machine.spawned), 5)

    def test_stop_while_one_is_down(self) -> None:
        """Nobody waits for the end of what has ended."""
        self.machine.spawned[1].end(9)
        self.stop()

    def test_late_comer(self) -> None:
        """A generation is given up for a process that is not ready in its time, however long others have been."""
        self.parent.replace()
        *first, last = self.machine.spawned[4:]
        for process in first:
            process.control.ready()
        self.machine.advance(READY_S - 1)
        self.want(5)
        self.machine.advance(0)
        last.control.ready()
        self.machine.advance(2)
        self.assertEqual(self.roles()["coming"], [0, 1, 2, 3, 4])
        self.machine.advance(READY_S)
        self.assertNotIn("coming", self.roles())
        self.assertEqual(self.counters.get("worker_generations", "failed"), 1)


def waiting(listener: socket.socket) -> int:
    """How many wait there; they are taken."""
    found = 0
    while select.select([listener], [], [], 0)[0]:
        listener.accept()[0].close()
        found += 1
    return found
