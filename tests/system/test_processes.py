"""Worker processes: real ones, in front of a real back end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.authority import Authority
from lbarray.testbed.nodes import twistd, wait_for
from tests.system.test_array import need_namespaces

_NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hi\\n"; }} }} }}
"""
_CONFIG = """
[array]
state_dir = "{folder}"
[worker]
processes = 2
stop_grace = "2s"
{more}
[services.http]
address = "127.0.0.1"
port = {service}
hash = "{hash}"
[pools.web.backends]
w1 = {{ address = "127.0.0.1:{backend}" }}
[console]
status = "127.0.0.1:{status}"
"""


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for_end(pid: int, seconds: float) -> None:
    """Until there is no such process any more."""
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), f"process {pid} to be gone", seconds)


class NodeCase(SynchronousTestCase):
    """A standalone node with two worker processes."""

    HASH = "client"
    MORE = ""
    #: Days for which the certificate of a TLS service is still good; 0: there is no such service.
    TLS_DAYS = 0.0

    def setUp(self) -> None:
        need_namespaces()
        self.folder = Path(tempfile.mkdtemp(prefix="lbarray-processes-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.folder)], check=True)
        os.chmod(self.folder, 0o755)
        self.service, backend, self.status_port = free_port(), free_port(), free_port()
        (self.folder / "nginx.conf").write_text(_NGINX.format(folder=self.folder, port=backend))
        self.start("nginx", "-e", str(self.folder / "error.log"), "-c", str(self.folder / "nginx.conf"))
        config = self.folder / "node.toml"
        config.write_text(
            _CONFIG.format(
                folder=self.folder,
                service=self.service,
                backend=backend,
                status=self.status_port,
                hash=self.HASH,
                more=self.MORE,
            )
        )
        if self.TLS_DAYS:
            certificate, key = Authority(self.folder).issue("a", "a.example", days=self.TLS_DAYS)
            tls = f'{{ certificate = "{certificate}", key = "{key}" }}'
            with config.open("a") as out:
                out.write(f'[services.https]\naddress = "127.0.0.1"\nport = {free_port()}\ntls = {tls}\n')
        self.node = self.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(config))
        wait_for(lambda: self.ready(0), "two processes to be ready", 20)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self.addCleanup(process.wait, 10)
        self.addCleanup(process.terminate)
        return process

    def status(self) -> dict[str, Any]:
        try:
            with urlopen(f"http://127.0.0.1:{self.status_port}/status", timeout=2) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return {}

    def processes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.status().get("workers", {}).get("processes", [])
        return found

    def ready(self, generation: int, *without: int, count: int = 2) -> list[int]:
        """The processes of this generation, once all of them are ready and these have gone."""
        found = [each for each in self.processes() if not each["leaving"]]
        pids = [each["pid"] for each in found if each["ready"] and each["generation"] == generation]
        return pids if len(pids) == len(found) == count and not set(pids) & set(without) else []

    def ask(self, source: str = "127.0.0.1") -> bytes:
        with socket.create_connection(("127.0.0.1", self.service), 5, source_address=(source, 0)) as client:
            client.settimeout(10)
            client.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            got = b""
            while data := client.recv(4096):
                got += data
            return got


class ProcessTests(NodeCase):
    """Their life."""

    def test_life(self) -> None:
        """Both serve; one that is killed is replaced while its clients wait; a new generation takes over under load
        without an error; counts are summed; when the node stops, nobody is left."""
        for client in range(1, 41):
            self.assertTrue(self.ask(f"127.0.2.{client}").endswith(b"hi\n"))
        served = wait_for(
            lambda: self.status().get("services", {}).get("http", {}).get("requests") == 40 and self.status(),
            "the sum of requests",
        )
        self.assertEqual(served["pools"]["web"]["w1"]["requests"], 40)

        first = self.ready(0)
        os.kill(first[0], signal.SIGKILL)
        answers = [self.ask(f"127.0.2.{client}") for client in range(1, 41)]
        self.assertEqual([answer for answer in answers if not answer.endswith(b"hi\n")], [])
        second = wait_for(lambda: self.ready(0, first[0]), "the killed one to be replaced")
        self.assertIn(first[1], second)
        self.assertEqual(self.status()["counters"]["worker_processes_ended"]["crashed"], 1)
        log = (self.folder / "log").read_text()
        self.assertIn("worker process", log)
        self.assertIn("signal 9", log)

        self.check_reload()

        command = ["lbarray", "workers", "replace", "--socket", str(self.folder / "lbarray.sock")]
        subprocess.run([twistd()[0], "-m", *command], check=True, stdout=subprocess.DEVNULL)
        failed = 0
        until = time.monotonic() + 10.0
        while not self.ready(1) and time.monotonic() < until:
            failed += not self.ask().endswith(b"hi\n")
        self.assertEqual(failed, 0)
        self.assertEqual(set(self.ready(1)) & set(second), set())

        last = self.ready(1)
        self.node.terminate()
        self.node.wait(10)
        for pid in (*second, *last):
            wait_for_end(pid, 15)

    def check_reload(self) -> None:
        """A reload keeps the processes, and with them every connection; a new service is served at once."""
        before = self.ready(0)
        with socket.create_connection(("127.0.0.1", self.service), 5) as held:
            held.settimeout(5)
            ask = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
            held.sendall(ask)
            self.assertIn(b"200", held.recv(4096))
            another = free_port()
            config = self.folder / "node.toml"
            text = config.read_text()
            config.write_text(f'{text}\n[services.more]\naddress = "127.0.0.1"\nport = {another}\n')
            self.node.send_signal(signal.SIGHUP)
            wait_for(lambda: "more" in self.status().get("services", {}), "the new service")
            counters = wait_for(
                lambda: self.status().get("counters", {}).get("worker_configurations"), "the processes to follow"
            )
            self.assertNotIn("refused", counters)
            held.sendall(ask)
            self.assertIn(b"200", held.recv(4096))
            for client in range(1, 21):
                with socket.create_connection(
                    ("127.0.0.1", another), 5, source_address=(f"127.0.2.{client}", 0)
                ) as new:
                    new.settimeout(5)
                    new.sendall(ask)
                    self.assertIn(b"200", new.recv(4096))
            self.assertEqual(self.ready(0), before)
            config.write_text(text)
            self.node.send_signal(signal.SIGHUP)
            wait_for(lambda: "more" not in self.status().get("services", {"more": 1}), "the service to be gone")
            wait_for(lambda: not accepts(another), "its port to be free")
            held.sendall(ask)
            self.assertIn(b"200", held.recv(4096))


class LimitTests(NodeCase):
    """What holds for the node holds for all its processes together; and one that is stuck."""

    HASH = "connection"
    TLS_DAYS = 5.0
    MORE = "max_connections = 24\nclient_connections = 16\nclient_requests = 1\nclient_burst = 10\nwatchdog = 2"

    def connect(self, source: str, count: int) -> list[socket.socket]:
        """So many connections of one client; those that were let in."""
        made = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.service), 5, source_address=(source, 0))
            client.settimeout(5)
            self.addCleanup(client.close)
            client.sendall(b"GET / HTTP/1.1\r\n")  # the rest of the request is kept back
            made.append(client)
        time.sleep(0.5)
        return [client for client in made if not ended(client)]

    def refused(self) -> dict[str, int]:
        found: dict[str, int] = self.status()["counters"].get("connections_refused", {})
        return found

    def test_limits(self) -> None:
        """Connections of the node, connections and requests of a client: exact, though two processes serve and the
        service is hashed by connection; a stopped process is killed, counted and replaced; none has a
        capability; what all of them see the log has once."""
        for pid in self.ready(0):
            status = Path(f"/proc/{pid}/status").read_text()
            self.assertIn("CapEff:\t0000000000000006\n", status)  # root's way to files
        log = (self.folder / "log").read_text()
        self.assertEqual(log.count("put a new one in its place"), 1, log)  # all of them have seen it
        answers = [self.ask("127.0.3.1") for _ in range(13)]
        self.assertEqual(sum(b" 429 " in answer for answer in answers), 3)
        self.assertEqual(len(self.connect("127.0.3.2", 20)), 16)
        self.assertEqual(self.refused(), {"client": 4})
        held = self.connect("127.0.3.3", 6) + self.connect("127.0.3.4", 6)
        self.assertEqual(len(held), 8)
        self.assertEqual(self.refused(), {"client": 4, "node": 4})
        self.assertEqual(self.status()["services"]["http"]["connections"], 24)

        first = self.ready(0)
        os.kill(first[0], signal.SIGSTOP)
        wait_for(lambda: self.ready(0, first[0]), "another process")
        counters = self.status()["counters"]
        self.assertEqual((counters["worker_processes_hung"], counters["worker_processes_ended"]["crashed"]), (1, 1))
        self.assertIn("has said nothing for", (self.folder / "log").read_text())


class NumberTests(NodeCase):
    """Another number of processes, while clients are connected. Each client's address chooses its process."""

    def take_up(self, processes: int) -> subprocess.CompletedProcess[str]:
        """A reload to so many processes."""
        config = self.folder / "node.toml"
        config.write_text(re.sub(r"processes = \d+", f"processes = {processes}", config.read_text()))
        command = [twistd()[0], "-m", "lbarray", "reload", "--socket", str(self.folder / "lbarray.sock")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def hold(self) -> list[socket.socket]:
        """Connections with half a request each, from so many addresses that every process has some."""
        made = []
        for client in range(1, 41):
            held = socket.create_connection(("127.0.0.1", self.service), 5, source_address=(f"127.0.5.{client}", 0))
            self.addCleanup(held.close)
            held.settimeout(5)
            held.sendall(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
            made.append(held)
        return made

    def check_whole(self, held: list[socket.socket]) -> None:
        """The other half is answered."""
        for each in held:
            each.sendall(b"\r\n")
            self.assertTrue(each.recv(4096).startswith(b"HTTP/1.1 200"))

    def accepted(self) -> dict[int, int]:
        """Connections so far of each process that stays."""
        return {each["place"]: each["accepted"] for each in self.processes() if not each["leaving"]}

    def check_spread(self, places: int) -> None:
        """New clients meet all processes that stay, and no other."""
        before = self.accepted()
        for client in range(1, 81):
            self.assertTrue(self.ask(f"127.0.6.{client}").endswith(b"hi\n"))
        more = {place: count - before[place] for place, count in self.accepted().items()}
        self.assertEqual(len(more), places)
        self.assertEqual(sum(more.values()), 80, more)
        self.assertTrue(all(more.values()), more)

    def test_number(self) -> None:
        """More take their share and fewer give it back, with every request that had begun; none at all is refused."""
        first, held = self.ready(0), self.hold()
        self.assertEqual(self.take_up(4).returncode, 0)
        wait_for(lambda: "4 worker processes share" in (self.folder / "log").read_text(), "four processes", 20)
        self.assertEqual(self.ready(0, count=4)[:2], first)
        self.check_spread(4)
        self.check_whole(held)

        many, held = self.ready(0, count=4), self.hold()
        self.assertEqual(self.take_up(1).returncode, 0)
        wait_for(lambda: self.ready(0, count=1), "three processes to be on their way out")
        self.check_spread(1)
        self.check_whole(held)
        for pid in many[1:]:
            wait_for_end(pid, 20)
        self.assertEqual(self.ready(0, count=1), many[:1])
        ended = self.status()["counters"]["worker_processes_ended"]
        self.assertEqual(ended, {"stopped": 3})

        self.assertEqual(self.take_up(2).returncode, 0)
        wait_for(lambda: "2 worker processes share" in (self.folder / "log").read_text(), "two processes", 20)
        self.check_spread(2)
        refused = self.take_up(0)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("worker.processes: 2 becomes 0 (whether a node serves in its own process", refused.stderr)
        self.check_spread(2)


class NumberByConnectionTests(NumberTests):
    """The same where the kernel chooses."""

    HASH = "connection"


def ended(client: socket.socket) -> bool:
    """Whether the other side has closed the connection."""
    client.setblocking(False)
    try:
        return not client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(5)


def accepts(port: int) -> bool:
    """Whether anybody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except ConnectionRefusedError:
        return False
    return True
