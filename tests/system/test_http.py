"""Real clients of HTTP before one node that is a process of its own: curl, nghttp, h2load, Chromium, WebSocket."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.browser import CHROMIUM, dump_dom
from lbarray.testbed.certificates import write_certificate
from lbarray.testbed.nodes import twistd, wait_for
from tests.system.sharing import shared

NEEDED = ("nginx", "curl", "nghttp", "h2load", CHROMIUM)

_CONFIG = """
[array]
state_dir = "state"
[services.plain]
address = "127.0.0.1"
port = {plain}
h2c = true
[services.tls]
address = "127.0.0.1"
port = {tls}
tls = {{ certificate = "site.crt", key = "site.key" }}
[pools.files.backends]
nginx = {{ address = "127.0.0.1:{files}" }}
[pools.chat.backends]
echo = {{ address = "127.0.0.1:{chat}" }}
[[routes]]
path = "/chat"
pool = "chat"
[[routes]]
pool = "files"
[worker]
header_timeout = "1s"
[console]
status = "127.0.0.1:{console}"
"""

_NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{ access_log off; keepalive_timeout 1s; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; client_max_body_size 100m;
server {{ listen 127.0.0.1:{files}; location = /small {{ return 200 "small"; }}
location / {{ root {folder}/site; }} }} }}
"""

#: Tells POST how much it has read; answers the handshake of RFC 6455 and then returns each frame without its mask.
_ECHO = r"""
import base64, hashlib, socket, struct, sys, threading
def serve(peer):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    stream = peer.makefile("rb")
    if head.startswith(b"POST"):
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        count = len(stream.read(int(lines[b"content-length"])))
        peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%d" % count)
        peer.shutdown(socket.SHUT_WR)
        return peer.close()
    key = next(line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    while True:
        two = stream.read(2)
        if len(two) < 2:
            return peer.close()
        length = two[1] & 127
        if length == 126:
            length, = struct.unpack("!H", stream.read(2))
        mask = stream.read(4)
        data = bytes(octet ^ mask[place % 4] for place, octet in enumerate(stream.read(length)))
        size = bytes([length]) if length < 126 else b"\x7e" + struct.pack("!H", length)
        peer.sendall(two[:1] + size + data)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

#: What a browser says of what it was given.
_PAGE = """<!doctype html><p>nothing yet</p><script>
(async () => {
  const texts = await Promise.all([...Array(40).keys()].map(async n => (await fetch(`/small?${n}`)).text()));
  const large = new Uint8Array(await (await fetch("/large")).arrayBuffer());
  const sent = await (await fetch("/chat/sink", {method: "POST", body: new Uint8Array(300000)})).text();
  const whole = texts.filter(text => text == "small").length + (large.every((octet, n) => octet == n % 256) ? 1 : 0);
  const ways = new Set(performance.getEntriesByType("resource").map(entry => entry.nextHopProtocol));
  document.querySelector("p").textContent = `${whole} whole by ${[...ways].join()}, ${sent} sent`;
})();
</script>"""


class Node:
    """One node and its back ends, on ports that were free."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lbarray-http-"))
        self.ports = dict(zip(("plain", "tls", "files", "chat", "console"), _free_ports(5), strict=True))
        self.processes: list[subprocess.Popen[bytes]] = []
        write_certificate(self.folder, "localhost", "127.0.0.1")
        (self.folder / "site").mkdir()
        (self.folder / "site" / "large").write_bytes(bytes(range(256)) * 20000)
        (self.folder / "node.toml").write_text(_CONFIG.format(**self.ports))
        (self.folder / "nginx.conf").write_text(_NGINX.format(folder=self.folder, **self.ports))
        self.folder.chmod(0o755)
        self.start("nginx", "-e", str(self.folder / "error.log"), "-c", str(self.folder / "nginx.conf"))
        self.start(sys.executable, "-c", _ECHO, str(self.ports["chat"]))
        self.daemon = self.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", "node.toml")
        for name in ("files", "chat", "plain", "tls"):
            wait_for(lambda name=name: _listens(self.ports[name]), f"{name}: {self.log()}")  # type: ignore[misc]

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class HttpTests(SynchronousTestCase):
    """One node for all of these tests."""

    def setUp(self) -> None:
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if missing:
            why = f"missing: {', '.join(missing)}"
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                raise AssertionError(f"system tests are required: {why}")
            raise SkipTest(why)
        self.node = shared(Node)

    def run_it(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, timeout=60, cwd=self.node.folder, check=False)
        text = done.stdout.decode("latin-1") + done.stderr.decode("latin-1")
        self.assertEqual(done.returncode, 0, text)
        return text

    def url(self, path: str, scheme: str = "https") -> str:
        return f"{scheme}://127.0.0.1:{self.node.ports['tls' if scheme == 'https' else 'plain']}{path}"

    def curl(self, *arguments: str) -> str:
        return self.run_it("curl", "-sS", "-m", "10", "--cacert", "site.crt", *arguments)

    def test_versions(self) -> None:
        """curl gets the page by every version of HTTP, and large content octet for octet."""
        for version, said in (("--http2", "2"), ("--http1.1", "1.1"), ("--http1.0", "1.1")):
            self.assertEqual(self.curl(version, "-w", " %{http_version}", self.url("/small")), f"small {said}")
        self.assertEqual(self.curl("--http2-prior-knowledge", self.url("/small", "http")), "small")
        for version in ("--http2", "--http1.1"):
            self.curl(version, "-o", "got", self.url("/large"))
            self.assertEqual((self.node.folder / "got").read_bytes(), bytes(range(256)) * 20000)

    def test_uploads(self) -> None:
        """Content of megabytes reaches the back end whole by both versions."""
        for version in ("--http2", "--http1.1"):
            said = self.curl(version, "-X", "POST", "--data-binary", "@site/large", self.url("/chat/sink"))
            self.assertEqual(int(said), 5_120_000)

    def test_nghttp(self) -> None:
        """nghttp multiplexes over one connection, with windows of its own size."""
        said = self.run_it("nghttp", "-nv", "-w", "12", "-m", "20", self.url("/small"), self.url("/large"))
        self.assertEqual(len(re.findall(r":status: 200", said)), 40, said[-3000:])

    def test_h2load(self) -> None:
        """2,000 requests over 4 connections of 25 streams, none of them failed."""
        said = self.run_it("h2load", "-n", "2000", "-c", "4", "-m", "25", self.url("/small"))
        self.assertIn("2000 succeeded, 0 failed, 0 errored, 0 timeout", said)

    def test_chromium(self) -> None:
        """A browser fetches 41 things and posts one by HTTP/2, all of them whole."""
        (self.node.folder / "site" / "page.html").write_text(_PAGE)
        url = f"https://localhost:{self.node.ports['tls']}/page.html"
        page = dump_dom(url, names={"localhost": "127.0.0.1"}, settle_s=20.0)
        self.assertIn("<p>41 whole by h2, 300000 sent</p>", page)

    def test_keepalive_ends(self) -> None:
        """A back end that closes idle connections after a second costs no client an error."""
        for _ in range(3):
            self.assertEqual(self.curl("--http1.1", *[self.url("/small")] * 20).count("small"), 20)
            self.run_it("sleep", "1")

    def test_websocket(self) -> None:
        """A WebSocket passes frames both ways, plain and over TLS."""
        for tls in (False, True):
            peer: Any = socket.create_connection(("127.0.0.1", self.node.ports["tls" if tls else "plain"]), 5)
            if tls:
                context = ssl.create_default_context(cafile=str(self.node.folder / "site.crt"))
                peer = context.wrap_socket(peer, server_hostname="localhost")
            key = base64.b64encode(b"0123456789abcdef")
            peer.sendall(
                b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
            )
            stream = peer.makefile("rb")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.readline()
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            self.assertIn(b"Sec-WebSocket-Accept: " + accept, head)
            for said in (b"hello", b"x" * 5000):
                size = bytes([0x80 | len(said)]) if len(said) < 126 else b"\xfe" + struct.pack("!H", len(said))
                peer.sendall(b"\x81" + size + b"\0\0\0\0" + said)
                self.assertEqual(stream.read(1), b"\x81")
                first = stream.read(1)[0]
                length = first if first < 126 else struct.unpack("!H", stream.read(2))[0]
                self.assertEqual(stream.read(length), said)
            peer.close()

    def test_crowd_of_slow_clients(self) -> None:
        """A thousand connections that never finish their heads hold little memory, and are gone after their time."""
        status = Path(f"/proc/{self.node.daemon.pid}/status")

        def resident() -> int:
            return int(re.findall(r"VmRSS:\s+(\d+) kB", status.read_text())[0])

        def descriptors() -> int:
            return len(os.listdir(f"/proc/{self.node.daemon.pid}/fd"))

        self.curl(self.url("/small", "http"))
        before, open_before = resident(), descriptors()
        crowd = []
        for _ in range(1000):
            peer = socket.create_connection(("127.0.0.1", self.node.ports["plain"]), 5)
            peer.sendall(b"GET / HTTP/1.1\r\nX: ")
            crowd.append(peer)
        self.assertEqual(self.curl(self.url("/small", "http")), "small")
        self.assertLess((resident() - before) / 1000, 20, "kB for each connection")
        wait_for(lambda: descriptors() <= open_before + 5, "slow clients to be gone", 10.0)
        self.assertIn(b" 408 ", crowd[0].recv(100))
        for peer in crowd:
            peer.close()
