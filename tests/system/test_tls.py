"""TLS with real clients: openssl s_client and curl at a standalone node, whose back ends are met over TLS too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.authority import Authority
from lbarray.testbed.nodes import twistd, wait_for
from tests.system.sharing import shared
from tests.system.test_array import need_namespaces

_NGINX = """daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{backend} ssl; ssl_certificate {folder}/internal.crt;
    ssl_certificate_key {folder}/internal.key; location / {{ return 200 "[$http_client_cert]\\n"; }} }}
  server {{ listen 127.0.0.1:{proxied} proxy_protocol; location / {{ return 200 "$proxy_protocol_addr\\n"; }} }} }}
"""
_CONFIG = """
[array]
state_dir = "{folder}"
[access_log]
path = "{folder}/access.log"
format = "json"
[services.https]
address = "127.0.0.1"
port = {https}
[services.https.tls]
certificate = "shop.crt"
key = "shop.key"
ocsp = "shop.ocsp"
client_certificates = "optional"
client_ca = "clients.pem"
[[services.https.tls.certificates]]
certificate = "rsa.crt"
key = "rsa.key"
[[services.https.tls.certificates]]
certificate = "blog.crt"
key = "blog.key"
[services.strict]
address = "127.0.0.1"
port = {strict}
tls = {{ certificate = "shop.crt", key = "shop.key", strict = true, profile = "modern" }}
[pools.web]
tls = {{ ca = "{ca}", name = "web.internal" }}
backends = {{ w1 = {{ address = "127.0.0.1:{backend}" }} }}
[pools.wrong]
tls = {{ ca = "{ca}", name = "other.internal" }}
backends = {{ w1 = {{ address = "127.0.0.1:{backend}" }} }}
[pools.proxied]
proxy_protocol = 2
backends = {{ w1 = {{ address = "127.0.0.1:{proxied}" }} }}
[[routes]]
pool = "web"
[[routes]]
path = "/wrong"
pool = "wrong"
[[routes]]
path = "/proxied"
pool = "proxied"
[console]
status = "127.0.0.1:{status}"
"""


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Site:
    """The node, its back end and its certificates."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lbarray-tls-"))
        self.folder.chmod(0o755)
        self.authority = Authority(self.folder)
        for stem, names, kind in (
            ("shop", ["shop.example"], "ecdsa"),
            ("rsa", ["shop.example"], "rsa"),
            ("blog", ["*.blog.example"], "ecdsa"),
            ("internal", ["web.internal"], "ecdsa"),
        ):
            self.authority.issue(stem, *names, kind=kind)
        self.authority.ocsp("shop")
        self.clients = Authority(self.folder, "Clients")
        self.client = self.clients.issue("alice", "alice")
        self.ports = {name: free_port() for name in ("https", "strict", "backend", "proxied", "status")}
        words = {"folder": self.folder, "ca": self.authority.path, **self.ports}
        (self.folder / "nginx.conf").write_text(_NGINX.format(**words))
        (self.folder / "node.toml").write_text(_CONFIG.format(**words))
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start("nginx", "-e", str(self.folder / "error.log"), "-c", str(self.folder / "nginx.conf"))
        self.node = self.start(*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(self.folder / "node.toml"))
        wait_for(lambda: self.curl("/").startswith("["), "the node to serve")

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        return self.processes[-1]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def curl(self, path: str, *options: str) -> str:
        """What curl gets for a path of shop.example."""
        port = self.ports["https"]
        out = subprocess.run(
            ["curl", "-s", "-m", "5", "--cacert", str(self.authority.path), "--resolve",
             f"shop.example:{port}:127.0.0.1", *options, f"https://shop.example:{port}{path}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return out.stdout

    def s_client(self, *options: str, port: str = "https", said: str = "") -> str:
        """What openssl says of a connection."""
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{self.ports[port]}", "-CAfile"]
        out = subprocess.run(
            [*command, str(self.authority.path), *options],
            input=said, capture_output=True, text=True, check=False, timeout=10,
        )  # fmt: skip
        return out.stdout + out.stderr

    def lbarray(self, *words: str) -> str:
        """A command to the node."""
        command = [twistd()[0], "-m", "lbarray", *words, "--socket", str(self.folder / "lbarray.sock")]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class TlsTests(SynchronousTestCase):
    """What s_client and curl see."""

    def setUp(self) -> None:
        need_namespaces()
        self.it = shared(Site)

    def test_certificates(self) -> None:
        """By name, and by the kind of signature that the client knows."""
        shop = self.it.s_client("-servername", "shop.example")
        self.assertIn("CN = shop.example", shop)
        self.assertIn("Verify return code: 0 (ok)", shop)
        self.assertIn("Peer signature type: ECDSA", shop)
        rsa = self.it.s_client("-servername", "shop.example", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256")
        self.assertIn("Peer signature type: RSA-PSS", rsa)
        self.assertIn("CN = *.blog.example", self.it.s_client("-servername", "www.blog.example"))
        self.assertIn("CN = shop.example", self.it.s_client("-noservername"))

    def test_protocols(self) -> None:
        """TLS 1.2 and 1.3; nothing older; ``modern`` and ``strict`` as they say."""
        self.assertIn("Protocol  : TLSv1.2", self.it.s_client("-servername", "shop.example", "-tls1_2"))
        self.assertIn("alert protocol version", self.it.s_client("-tls1_1", "-cipher", "ALL@SECLEVEL=0"))
        strict = ("-servername", "shop.example")
        self.assertIn("alert protocol version", self.it.s_client(*strict, "-tls1_2", port="strict"))
        self.assertIn("TLSv1.3, Cipher is TLS_", self.it.s_client(*strict, port="strict"))
        self.assertIn("unrecognized name", self.it.s_client("-servername", "evil.example", port="strict"))

    def test_no_renegotiation(self) -> None:
        """A client that asks for another handshake does not get one."""
        said = self.it.s_client("-servername", "shop.example", "-tls1_2", said="R\n")
        self.assertIn("no renegotiation", said)

    def test_alpn_and_staple(self) -> None:
        """The protocol is agreed on, and the OCSP response is there for those who ask."""
        said = self.it.s_client("-servername", "shop.example", "-alpn", "http/1.1", "-status")
        self.assertIn("ALPN protocol: http/1.1", said)
        self.assertIn("OCSP Response Status: successful", said)
        self.assertIn("Cert Status: good", said)

    def test_client_certificate(self) -> None:
        """The back end learns of a verified one, and of no claimed one."""
        certificate, key = self.it.client
        for version in ("--http1.1", "--http2"):
            seen = self.it.curl("/", version, "--cert", str(certificate), "--key", str(key))
            self.assertTrue(seen.startswith("[:MII"), seen)
            self.assertEqual(self.it.curl("/", version, "-H", "Client-Cert: :MIIforged:"), "[]\n")

    def test_back_ends(self) -> None:
        """Over TLS, and only to whom proves to be one; with a PROXY header where it is wanted."""
        self.assertTrue(self.it.curl("/").startswith("[]"))
        self.assertEqual(self.it.curl("/wrong", "-o", "/dev/null", "-w", "%{http_code}"), "503")
        self.assertEqual(self.it.curl("/proxied", "--interface", "127.0.7.7"), "127.0.7.7\n")

    def test_new_certificate(self) -> None:
        """A new file is shown after ``lbarray certs reload``; ``lbarray certs`` tells what is shown."""
        self.assertIn("shop.example", self.it.lbarray("certs"))
        before = self.it.s_client("-servername", "www.blog.example", "-showcerts")
        self.it.authority.issue("blog", "*.blog.example")
        self.assertIn("https: read anew", self.it.lbarray("certs", "reload"))
        after = self.it.s_client("-servername", "www.blog.example", "-showcerts")
        block = "-----BEGIN CERTIFICATE-----"
        self.assertNotEqual(before.split(block)[1], after.split(block)[1])

    def test_access_log(self) -> None:
        """Each request has its line; after SIGUSR1 in a new file."""
        path = self.it.folder / "access.log"
        self.it.curl("/logged?q", "-A", "a client")

        def lines(where: Path) -> list[dict[str, Any]]:
            return [json.loads(line) for line in where.read_text().splitlines()] if where.exists() else []

        found = wait_for(lambda: [each for each in lines(path) if each["target"] == "/logged?q"], "the line")
        self.assertEqual(
            (found[0]["status"], found[0]["agent"], found[0]["backend"], found[0]["service"]),
            (200, "a client", "w1", "https"),
        )
        os.rename(path, path.with_suffix(".1"))
        self.it.node.send_signal(signal.SIGUSR1)
        wait_for(path.exists, "the new file")
        self.it.curl("/again")
        wait_for(lambda: [each for each in lines(path) if each["target"] == "/again"], "the line in the new file")
