"""What systemd hears."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.daemon.privileges import CAPABILITIES, become
from lbarray.daemon.service import summary
from lbarray.daemon.supervisor import Supervisor, notify, watchdog_s
from lbarray.errors import SystemRefused


class SupervisorTests(SynchronousTestCase):
    """A socket in place of systemd's."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="lbarray-test-")
        self.addCleanup(temporary.cleanup)
        self.path = str(Path(temporary.name) / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.clock = Clock()
        self.environment = {"NOTIFY_SOCKET": self.path, "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": str(os.getpid())}

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def test_life(self) -> None:
        """Ready once it runs, alive three times within the watchdog's patience, stopping when it stops."""
        supervisor = Supervisor(clock=self.clock, status=lambda: "well", environment=self.environment)
        supervisor.startService()
        self.assertEqual(self.heard(), ["READY=1\nSTATUS=well"])
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.heard(), ["WATCHDOG=1\nSTATUS=well"] * 3)
        supervisor.stopService()
        self.assertEqual(self.heard(), ["STOPPING=1\nSTATUS=handing over"])
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(self.heard()), 1)  # handing over may take longer than the watchdog waits
        supervisor.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stuck(self) -> None:
        """A reactor that does not turn says nothing: that is how systemd knows."""
        supervisor = Supervisor(clock=self.clock, status=lambda: "", environment=self.environment)
        supervisor.startService()
        self.addCleanup(supervisor.close)
        self.heard()
        self.assertEqual(self.heard(), [])

    def test_without_systemd(self) -> None:
        """Nobody listens: nothing is sent, nothing runs."""
        supervisor = Supervisor(clock=self.clock, status=lambda: "", environment={})
        supervisor.startService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(notify("READY=1", environment={"NOTIFY_SOCKET": "/nowhere/at/all"}))

    def test_watchdog_of_another_process(self) -> None:
        """The watchdog's time is for the process that systemd started."""
        self.assertEqual(watchdog_s({"WATCHDOG_USEC": "2000000"}, 7), 2.0)
        self.assertEqual(watchdog_s({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 7), 2.0)
        self.assertIsNone(watchdog_s({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, 7))
        self.assertIsNone(watchdog_s({}, 7))

    def test_summary(self) -> None:
        """One line that says what matters."""
        status = {
            "node": "a",
            "membership": {"members": {"a": {"roles": ["SCHEDULER"]}, "b": {"roles": []}}, "missing": ["c"]},
            "services": {"http": {"connections": 3}},
            "pools": {"web": {"w1": {"state": "up"}, "w2": {"state": "down"}}},
            "configuration": {"version": "0123"},
        }
        self.assertEqual(
            summary(status), "scheduler, 2 of 3 nodes, 3 connections, 1 of 2 back ends serve; configuration 0123"
        )


class PrivilegeTests(SynchronousTestCase):
    """From root to a user."""

    def test_no_such_user(self) -> None:
        """Said with the command that makes one."""
        error: SystemRefused = self.assertRaises(SystemRefused, become, "nobody-of-that-name", ())
        self.assertIn("useradd --system", str(error))

    def test_become(self) -> None:
        """The user with the capabilities kept, in children too; no way back to root."""
        if os.geteuid() != 0:
            raise SkipTest("not root")
        folder = Path(self.mktemp()).absolute()
        code = (
            "import os, subprocess, sys\n"
            "from pathlib import Path\n"
            "from lbarray.daemon.privileges import become, held\n"
            "become('nobody', ['CAP_NET_ADMIN', 'CAP_NET_BIND_SERVICE'], [Path(sys.argv[1])])\n"
            "print(os.getuid(), os.geteuid(), *sorted(held()))\n"
            "print(subprocess.run(['grep', '-E', 'CapEff|CapBnd|NoNewPrivs', '/proc/self/status'],"
            " capture_output=True, text=True).stdout.split())\n"
            "try: os.setuid(0)\n"
            "except PermissionError: print('no way back')\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        first, second, third = done.stdout.splitlines()
        uid, euid, *kept = first.split()
        self.assertEqual((uid, euid, kept), (euid, euid, ["CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"]))
        self.assertNotEqual(uid, "0")
        mask = (1 << CAPABILITIES["CAP_NET_ADMIN"]) | (1 << CAPABILITIES["CAP_NET_BIND_SERVICE"])
        self.assertIn(f"{mask:016x}", second)
        self.assertEqual(third, "no way back")
        self.assertEqual(folder.stat().st_uid, int(uid))
