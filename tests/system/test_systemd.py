"""The unit that is shipped, under a systemd of its own: in namespaces of this machine, with nothing but this unit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.testbed.nodes import wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT = ROOT / "etc" / "lbarray.service"
SYSTEMD = next((path for path in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.path.exists(path)), "")
CONFIG = """
[services.http]
address = "127.0.0.1"
port = 80
[pools.web.backends]
w1 = { address = "127.0.0.1:8001" }
"""
#: Runs as the first process of new namespaces. Python and the tree are where the unit's sandbox can see them
#: (ProtectHome), accounts and configuration in a layer over /etc that ends with the namespace.
INSIDE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /opt
mkdir /opt/python /opt/packages /opt/tree
mount --bind "$BASE" /opt/python
mount --bind "$PACKAGES" /opt/packages
mount --bind "$TREE" /opt/tree
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
fi
echo 'lbarray:x:987:987::/var/lib/lbarray:/usr/sbin/nologin' >>/etc/passwd
echo 'lbarray:x:987:' >>/etc/group
mkdir -p /etc/lbarray
cp "$FOLDER/array.toml" /etc/lbarray/array.toml
chmod 755 /etc/lbarray
chmod 644 /etc/lbarray/array.toml
ip link set lo up
export container=lbarray SYSTEMD_UNIT_PATH="$FOLDER/units"
exec "$SYSTEMD" --system --log-target=console --show-status=no --unit=default.target
"""


def hierarchies() -> list[Path]:
    """Where a group of processes has to be made so that systemd can be its head."""
    whole = Path("/sys/fs/cgroup")
    if (whole / "cgroup.controllers").exists():
        return [whole]
    return [whole / name for name in ("systemd", "unified") if (whole / name).is_dir()]


class UnitTests(SynchronousTestCase):
    """``etc/lbarray.service``, line by line as it is, but for where Python is."""

    def setUp(self) -> None:
        missing = [name for name in ("unshare", "nsenter", "systemctl") if shutil.which(name) is None]
        if os.geteuid() != 0 or not SYSTEMD or missing:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                self.fail(f"needs root and systemd; missing: {missing or SYSTEMD or 'systemd'} (tools/system-packages)")
            raise SkipTest("needs root and systemd")
        folder = tempfile.TemporaryDirectory(prefix="lbarray-systemd-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.folder.chmod(0o755)
        (self.folder / "array.toml").write_text(CONFIG)

    def boot(self, **settings: str) -> None:
        """Start systemd; ``settings`` are set in the unit, besides what is there."""
        units = self.folder / "units"
        (units / "lbarray.service.d").mkdir(parents=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        program = f"/opt/python/bin/{version} -c 'from twisted.scripts.twistd import run; run()'"
        text = UNIT.read_text()
        self.assertIn("/usr/bin/env twistd", text)
        (units / "lbarray.service").write_text(text.replace("/usr/bin/env twistd", program))
        lines = [
            "[Service]",
            "Environment=LBARRAY_NODE=lbarray PYTHONPATH=/opt/tree:/opt/packages LD_LIBRARY_PATH=/opt/python/lib",
        ]
        lines += [f"StandardOutput=append:{self.folder}/log", f"StandardError=append:{self.folder}/log"]
        lines += [f"{key}={value}" for key, value in settings.items()]
        (units / "lbarray.service.d" / "test.conf").write_text("\n".join(lines) + "\n")
        for name in ("sysinit", "basic", "shutdown", "network-online", "multi-user", "umount", "final"):
            (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
        (units / "default.target").write_text(
            "[Unit]\nDescription=all\nDefaultDependencies=no\nWants=lbarray.service\n"
        )
        (self.folder / "inside").write_text(INSIDE)

        groups = [whole / f"lbarray-test-{os.getpid()}-{self.folder.name[-6:]}" for whole in hierarchies()]
        for group in groups:
            group.mkdir()
            self.addCleanup(self.remove, group)
        enter = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
        command = (
            f"{enter} exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child --mount-proc "
            f"sh {self.folder}/inside"
        )
        environment = {
            "PATH": os.environ["PATH"],
            "BASE": sys.base_prefix,
            "PACKAGES": sysconfig.get_path("purelib"),
            "TREE": str(ROOT),
            "FOLDER": str(self.folder),
            "SYSTEMD": SYSTEMD,
        }
        with (self.folder / "log").open("wb") as log:
            self.outer = subprocess.Popen(["sh", "-c", command], env=environment, stdout=log, stderr=log)
        self.addCleanup(self.outer.wait, 20)
        self.addCleanup(self.outer.kill)
        self.first = wait_for(self.child, f"systemd: {(self.folder / 'log').read_text()}", 10)
        try:
            wait_for(lambda: self.state("ActiveState") == "active", "the unit", 15, 0.2)
        except SystemRefused as error:
            said = self.inside("systemctl", "status", "lbarray", "--no-pager", "-l")
            self.fail(f"{error}\n{said}\n{(self.folder / 'log').read_text()[-3000:]}")

    def child(self) -> int | None:
        """The number of the first process in the namespaces."""
        listed = Path(f"/proc/{self.outer.pid}/task/{self.outer.pid}/children").read_text().split()
        return int(listed[0]) if listed and b"systemd" in Path(f"/proc/{listed[0]}/cmdline").read_bytes() else None

    @staticmethod
    def remove(group: Path) -> None:
        def empty() -> bool:
            try:
                for inner in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                    inner.rmdir()
                group.rmdir()
            except OSError:
                return not group.exists()
            return True

        wait_for(empty, f"{group} to be empty", 10, 0.1)

    def inside(self, *command: str) -> str:
        """What a command prints in the namespaces."""
        enter = ["nsenter", "-t", str(self.first), "-m", "-p", "-n", "-u", "-i", "-C"]
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=30).stdout

    def state(self, name: str) -> str:
        """A property of the unit."""
        return self.inside("systemctl", "show", "lbarray", "-p", name, "--value").strip()

    def test_life(self) -> None:
        """Ready when it serves; not root, with five capabilities; reloads what changed; stops in order."""
        self.boot()
        self.assertEqual(self.inside("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1/"), "503")
        self.assertIn("1 of 1 back ends serve", self.state("StatusText"))
        status = self.inside("cat", f"/proc/{self.state('MainPID')}/status")
        self.assertIn("Uid:\t987\t987\t987\t987", status)
        self.assertRegex(status, r"CapEff:\s+000000c000003400\n")
        self.assertRegex(status, r"CapBnd:\s+000000c000003400\n")
        self.assertIn("NoNewPrivs:\t1", status)

        before = self.state("MainPID")
        self.inside("sed", "-i", "s/8001/8002/", "/etc/lbarray/array.toml")
        self.inside("systemctl", "reload", "lbarray")

        def changed() -> bool:
            said = self.inside("curl", "-s", "http://127.0.0.1:9080/status")
            return bool(json.loads(said)["pools"]["web"]["w1"]["address"] == "127.0.0.1:8002")

        wait_for(changed, "the new back end", 10, 0.1)
        self.assertEqual(self.state("MainPID"), before)
        self.inside("systemctl", "stop", "lbarray")
        self.assertEqual((self.state("ActiveState"), self.state("Result")), ("inactive", "success"))

    def test_stuck(self) -> None:
        """A process that stands still is ended by the watchdog, and started again."""
        self.boot(WatchdogSec="2", LimitCORE="0")
        stuck = self.state("MainPID")
        self.inside("kill", f"-{int(signal.SIGSTOP)}", stuck)
        wait_for(lambda: self.state("NRestarts") == "1", "the restart", 20, 0.2)
        wait_for(lambda: self.state("ActiveState") == "active", "the unit again", 20, 0.2)
        self.assertNotEqual(self.state("MainPID"), stuck)

    def test_verified(self) -> None:
        """systemd finds nothing wrong with the unit, and its exposure is what the documentation says of it."""
        path = self.folder / "lbarray.service"
        path.write_text(UNIT.read_text().replace("/usr/bin/env twistd", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
        )
        ours = [line for line in done.stderr.splitlines() if "lbarray" in line]
        self.assertEqual(ours, [])
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.search(r"exposure level for lbarray\.service: ([\d.]+)", done.stdout)
        assert found is not None, done.stdout + done.stderr
        said = (ROOT / "docs" / "security.rst").read_text()
        self.assertIn(f"``systemd-analyze security`` gives the unit {found[1]} ", said)
