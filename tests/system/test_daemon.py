"""The process around a node: its user, its supervisor."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import NODES, VIP, Array, twistd, wait_for
from tests.system.test_array import need_namespaces

USER = "nobody"
USER_GROUP = pwd.getpwnam(USER).pw_gid


def processes() -> int:
    """How many worker processes this user can have: none where the interpreter is root's own."""
    try:
        command = [sys.executable, "-c", ""]
        done = subprocess.run(command, check=False, user=USER, group=USER_GROUP, extra_groups=(), capture_output=True)
    except PermissionError:
        return 0
    return 2 if done.returncode == 0 else 0


def edit(text: str) -> str:
    """Another user, and worker processes where it can have them."""
    return text.replace("[worker]", f"[worker]\nprocesses = {processes()}") + f'\n[process]\nuser = "{USER}"\n'


class NotRootTests(SynchronousTestCase):
    """A node of an array that is started as root and does not stay it."""

    def setUp(self) -> None:
        need_namespaces()

    def test_whole_life(self) -> None:
        """It owns the VIP, serves, reloads, tells its supervisor, and cleans up, all as a user that is not root."""
        with Array(nodes={"a": NODES["a"]}, edit=edit) as array:
            host = array.host("a")
            host.kill()
            array.folder.chmod(0o755)
            group = pwd.getpwnam(USER).pw_gid
            for private in ("array.key", "site.key", "manhole.password", "api.token"):
                os.chown(array.folder / private, 0, group)
                (array.folder / private).chmod(0o640)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
                supervisor.bind(str(array.folder / "notify"))
                (array.folder / "notify").chmod(0o666)
                supervisor.settimeout(20)
                command = [*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(array.config), "--node", "a"]
                environment = [f"NOTIFY_SOCKET={array.folder}/notify", "WATCHDOG_USEC=3000000"]
                with (array.folder / "a.log").open("wb") as log:
                    host.start("env", *environment, *command, log=log)
                self.assertIn(b"READY=1", supervisor.recv(4096), array.log_of("a"))
                self.assertIn(b"WATCHDOG=1", supervisor.recv(4096))
            array.wait_ready()
            self.assertEqual([a for a in array.ask(array.load(count=10, tls=True)) if not a.good], [])
            workers = 0
            for pid in host.pids():
                status = Path(f"/proc/{pid}/status").read_text()
                command_line = Path(f"/proc/{pid}/cmdline").read_text()
                if "lbarray.worker_process" in command_line:
                    workers += 1
                    self.assertIn("CapEff:\t0000000000000000\n", status)
                if "twistd" in command_line or "lbarray.worker_process" in command_line:
                    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                    self.assertEqual(set(lines["Uid"].split()), {str(pwd.getpwnam(USER).pw_uid)})
                    self.assertEqual(lines["NoNewPrivs"], "1")
                    self.assertEqual(int(lines["CapEff"], 16) & ~int(lines["CapBnd"], 16), 0)
                    # CAP_SYS_ADMIN, CAP_DAC_OVERRIDE, CAP_SETUID: none of what would make it root again.
                    self.assertEqual(int(lines["CapBnd"], 16) & (1 << 21 | 1 << 1 | 1 << 7), 0)
            self.assertEqual(workers, processes())
            config = array.config.read_text()
            array.config.write_text(config.replace('"10.77.0.21:80"', '"10.77.0.21:80", weight = 7'))
            for pid in host.pids():
                os.kill(pid, signal.SIGHUP)
            wait_for(lambda: "weight: 1 becomes 7" in array.log_of("a"), "the reload", 10)
            for pid in host.pids():
                os.kill(pid, signal.SIGTERM)
            wait_for(lambda: not host.pids(), "the end", 15)
            self.assertNotIn(VIP, host.run("ip", "addr"))
            self.assertEqual(host.run("tc", "filter", "show", "dev", "eth0", "ingress").strip(), "")
            self.assertEqual(host.run("cat", "/proc/sys/net/ipv4/conf/all/arp_ignore").strip(), "0")
            self.assertNotIn("Traceback", array.log_of("a"))
