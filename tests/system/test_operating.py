"""Operating an array: what changes while clients are there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.certificates import write_certificate
from lbarray.testbed.nodes import NODES, SITE, VIP, Array, twistd, wait_for
from tests.system.test_array import need_namespaces

#: Opens connections, asks once over each, keeps them, and asks again over each when told to.
HOLDER = """
import json, os, socket, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ask = b"GET /whoami.html HTTP/1.1\\r\\nHost: shop.example.com\\r\\n\\r\\n"

def answer(connection):
    text = b""
    while b"\\r\\n\\r\\n" not in text:
        text += connection.recv(65536) or b"\\r\\n\\r\\nclosed"
    head, _, body = text.partition(b"\\r\\n\\r\\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\\r\\n")[1:] if b": " in line)
    fields = {name.lower(): value for name, value in fields.items()}
    want = int(fields.get(b"content-length", b"-1"))
    while 0 <= len(body) < want:
        body += connection.recv(65536) or exit("closed in the middle")
    chunked = b"chunked" in fields.get(b"transfer-encoding", b"")
    while chunked and not body.endswith(b"0\\r\\n\\r\\n"):
        body += connection.recv(65536) or exit("closed in the middle")
    return head.split(b" ")[1:2] == [b"200"]

held = []
for number in range(count):
    source = ("10.77.0.%d" % (200 + number % 16), 0)
    connection = socket.create_connection((host, port), 5, source)
    connection.sendall(ask)
    assert answer(connection)
    held.append(connection)
print("held", flush=True)
while not os.path.exists(sys.argv[4]):
    time.sleep(0.05)
good = 0
for connection in held:
    try:
        connection.sendall(ask)
        good += answer(connection)
    except OSError as error:
        print(error, file=sys.stderr)
print(json.dumps({"good": good}), flush=True)
"""


class OperatingCase(SynchronousTestCase):
    """Commands on nodes."""

    def setUp(self) -> None:
        need_namespaces()

    def command(self, array: Array, name: str, *arguments: str) -> Any:
        """What a command of lbarray answers, asked on a node."""
        return json.loads(self.said(array, name, *arguments, "--json"))

    def said(self, array: Array, name: str, *arguments: str) -> str:
        """What a command prints, errors too."""
        command = [sys.executable, "-m", "lbarray", *arguments, "--socket", f"{array.folder}/state/{name}.sock"]
        return array.host(name).run("sh", "-c", f"{shlex.join(command)} 2>&1", check=False)


class ReloadTests(OperatingCase):
    """``lbarray reload`` and SIGHUP."""

    HELD = 1000

    def test_reload_under_load(self) -> None:
        """A service, weights, a certificate, routes and filters change; no request and no connection breaks."""
        with Array() as array:
            array.wait_ready()
            (array.folder / "holder.py").write_text(HOLDER)
            with (array.folder / "holder.log").open("wb") as log:
                holder = array.client.start(
                    sys.executable,
                    str(array.folder / "holder.py"),
                    VIP,
                    "80",
                    str(self.HELD),
                    str(array.folder / "again"),
                    log=log,
                )
            wait_for(lambda: "held" in array.log_of("holder"), "the connections", 40, 0.1)
            clients = [
                array.start_clients(
                    array.load(seconds=5.0, threads=2, pause_s=0.005, per_connection=50, timeout_s=5.0, tls=tls)
                )
                for tls in (False, True)
            ]
            wait_for(lambda: all(len(each.so_far()) > 50 for each in clients), "traffic")

            other = array.folder / "other"
            other.mkdir()
            write_certificate(other, "new.example.com", VIP)
            text = array.config.read_text()
            text = text.replace('"10.77.0.21:80"', '"10.77.0.21:80", weight = 5')
            text = text.replace('paths = ["/static/", "/images/"]', 'paths = ["/images/"]')
            text += f'\n[services.more]\nvip = "{VIP}"\nport = 8080\n'
            text += f'\n[services.secure]\nvip = "{VIP}"\nport = 8443\n'
            text += 'tls = { certificate = "other/site.crt", key = "other/site.key" }\n'
            text += '\n[pools.other.backends]\nw2 = { address = "10.77.0.22:80" }\n'
            text += '\n[[routes]]\npool = "other"\nservices = ["more"]\n[[routes]]\npool = "web"\n'
            array.config.write_text(text)
            answer = self.command(array, "a", "reload")
            for name in ("b", "c"):
                for pid in array.host(name).pids():
                    os.kill(pid, signal.SIGHUP)

            def versions() -> set[str]:
                return {((array.status(name) or {}).get("configuration") or {}).get("version", "") for name in NODES}

            wait_for(lambda: versions() == {answer["version"]}, "one version everywhere", 10, 0.1)

            answers = [one for each in clients for one in each.answers(30)]
            self.assertEqual([one for one in answers if not one.good], [])
            self.assertGreater(len(answers), 500)
            (array.folder / "again").touch()
            holder.wait(30)
            last = array.log_of("holder").splitlines()[-1]
            self.assertEqual(json.loads(last), {"good": self.HELD}, array.log_of("holder")[-500:])

            # And everything that changed is so.
            page = array.client.run("curl", "-s", f"http://{VIP}:8080/whoami.html")
            self.assertIn("w2", page)
            said = array.client.run("sh", "-c", f"curl -skv https://{VIP}:8443/whoami.html -o /dev/null 2>&1")
            self.assertIn("new.example.com", said)
            page = array.client.run("curl", "-s", "-H", f"Host: {SITE}", f"http://{VIP}/")
            self.assertNotIn("cdn.example.net/static/", page)
            self.assertIn("cdn.example.net/images/", page)
            status = array.status("b")
            assert status is not None
            self.assertEqual(status["pools"]["web"]["w1"]["weight"], 5)

            # What will not do changes nothing, and says why.
            array.config.write_text(text.replace('pool = "other"', 'pool = "othr"'))
            said = self.said(array, "a", "reload")
            self.assertIn('routes[0].pool: found "othr"; accepted: "other"', said)
            self.assertEqual((array.status("a") or {})["configuration"]["version"], answer["version"])


class ArrayReloadTests(OperatingCase):
    """What makes machines an array changes while they run."""

    def test_array_changes(self) -> None:
        """A VIP comes and goes, priorities, intervals and shares change; the old VIP's clients notice nothing."""
        second = "10.77.0.101"
        with Array() as array:
            array.wait_ready()
            before = array.config.read_text()
            clients = array.start_clients(
                array.load(seconds=40.0, threads=2, pause_s=0.01, per_connection=20, timeout_s=5.0)
            )
            wait_for(lambda: len(clients.so_far()) > 30, "traffic")
            text = before.replace(f'vips = ["{VIP}/24"]', f'vips = ["{VIP}/24", "{second}/24"]')
            text = text.replace("priority = 130", "priority = 200").replace(
                'interval = "100ms"', 'interval = "200ms"\nno_worker_weight = 20', 1
            )
            text = text.replace("slow_start = 0", 'slow_start = "1s"\nfeedback = false')
            text += f'\n[services.second]\nvip = "{second}"\nport = 80\n'
            self.run_by(array, text)
            wait_for(lambda: self.owned(array, "b") == {VIP, second}, "b to own both", 10, 0.1)
            self.assertIn("This is w", array.client.run("curl", "-si", f"http://{second}/whoami.html"))
            for name in NODES:
                self.assertIn(second, array.host(name).run("ip", "addr", "show", "lo"))

            # And back: what is no longer wanted goes, once its last clients have had their time.
            self.run_by(array, before)
            wait_for(lambda: self.owned(array, "a") == {VIP}, "a to own the first again", 10, 0.1)
            seen = len(clients.so_far())
            wait_for(lambda: len(clients.so_far()) > seen + 30, "traffic afterwards")
            self.assertEqual([answer for answer in clients.so_far() if not answer.good], [])
            for name in NODES:
                self.assertNotIn(second, array.host(name).run("ip", "addr", "show", "eth0"))

    def run_by(self, array: Array, text: str) -> None:
        array.config.write_text(text)
        versions = [self.command(array, name, "reload")["version"] for name in NODES]
        self.assertEqual(len(set(versions)), 1)

    def owned(self, array: Array, name: str) -> set[str]:
        return set(((array.status(name) or {}).get("failover") or {}).get("owned", ()))


class PushAndUpgradeTests(OperatingCase):
    """The whole array from one place."""

    def test_push_then_upgrade(self) -> None:
        """A push reaches every node's own file; then each node is drained and restarted, and no request fails."""
        with Array() as array:
            for name in NODES:
                array.host(name).kill()
                folder = array.folder / f"etc-{name}"
                folder.mkdir()
                for file in ("array.key", "site.crt", "site.key", "manhole.password", "api.token", "array.toml"):
                    shutil.copy2(array.folder / file, folder / file)
                text = (folder / "array.toml").read_text().replace('"state"', f'"{array.folder}/state"')
                (folder / "array.toml").write_text(text)
                array.start_node(name, config=folder / "array.toml")
            array.wait_ready()
            new = text.replace('"10.77.0.21:80"', '"10.77.0.21:80", weight = 3')
            (array.folder / "new.toml").write_text(new)
            pushed = self.command(array, "b", "push", str(array.folder / "new.toml"))
            self.assertEqual(pushed["nodes"], ["b", "a", "c"])
            for name in NODES:
                self.assertEqual((array.folder / f"etc-{name}" / "array.toml").read_text(), new)
                self.assertEqual((array.status(name) or {})["configuration"]["version"], pushed["version"])

            clients = array.start_clients(
                array.load(seconds=60.0, threads=2, pause_s=0.01, per_connection=5, timeout_s=5.0)
            )
            wait_for(lambda: len(clients.so_far()) > 30, "traffic")
            done = self.upgrade(array)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            seen = len(clients.so_far())
            wait_for(lambda: len(clients.so_far()) > seen + 20, "traffic after the last node")
            failed = [answer for answer in clients.so_far() if not answer.good]
            self.assertEqual(failed, [])
            for name in NODES:
                # Killed by this test at first, then started, then restarted by the upgrade.
                self.assertGreaterEqual(array.log_of(name).count(f"node {name} of array testbed runs"), 2)

    def upgrade(self, array: Array) -> subprocess.CompletedProcess[str]:
        """Run the script, with namespaces in place of ssh and a restart by hand in place of systemd's."""
        folder = array.folder
        ours = array.host("a").namespace.rpartition("-")[0]
        start = shlex.join([*twistd(), "-n", "--pidfile=", "lbarray", "--config"])
        (folder / "on").write_text(
            "#!/bin/sh\n"
            f"namespace=$(ip netns list | grep -o '{ours}-'$1'\\>')\nshift\n"
            'exec ip netns exec "$namespace" sh -c "$*"\n'
        )
        (folder / "restart").write_text(
            "#!/bin/sh\n"
            "namespace=$(ip netns identify $$); node=${namespace##*-}; daemons=\n"
            "for pid in $(ip netns pids $namespace); do\n"
            '  tr "\\0" " " </proc/$pid/cmdline | grep -q " lbarray --config\\| lbarray node" || continue\n'
            '  daemons="$daemons $pid"\n'
            "done\n"
            "kill $daemons\n"
            "for pid in $daemons; do\n"
            "  while kill -0 $pid 2>/dev/null && ! grep -q zombie /proc/$pid/status; do sleep 0.05; done\n"
            "done\n"
            f"setsid {start} {folder}/etc-$node/array.toml --node $node >>{folder}/$node.log 2>&1 </dev/null &\n"
        )
        for name in ("on", "restart"):
            (folder / name).chmod(0o755)
        socket = f"LBARRAY_SOCKET={folder}/state/$(ip netns identify $$ | sed s/.*-//).sock"
        script = Path(__file__).resolve().parent.parent.parent / "tools" / "upgrade-array"
        environment = {
            "REMOTE": f"{folder}/on %s",
            "UPGRADE": "true",
            "RESTART": f"{folder}/restart",
            "LBARRAY": f"env {socket} {sys.executable} -m lbarray",
            "DRAIN_S": "15",
        }
        return subprocess.run(
            [str(script), "c", "b", "a"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
