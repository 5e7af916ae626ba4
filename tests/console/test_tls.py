"""The API beyond this machine: over TLS, with a token or a client certificate."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbarray.commands import main
from lbarray.config.console import ConsoleTls
from lbarray.config.load import parse
from lbarray.console.service import ApiService
from lbarray.errors import BadConfig, SystemRefused
from lbarray.testbed.certificates import write_certificate
from tests.console.test_console import make_view
from tests.system.ports import free_ports

BASE = """
[services.http]
address = "127.0.0.1"
port = 80
[pools.p.backends.b]
address = "127.0.0.1:1"
"""


class TlsTests(TestCase):
    """A real listener on loopback, asked as if from elsewhere: with what a foreign host would need."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        temporary = tempfile.TemporaryDirectory(prefix="lbarray-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        write_certificate(self.folder, "localhost", "127.0.0.1")
        for stem in ("client", "stranger"):
            certificate, key = write_certificate(self.folder, stem, stem=stem)
            (self.folder / f"{stem}.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        (self.port,) = free_ports(1)
        self.heard: list[tuple[object, ...]] = []
        tls = ConsoleTls(self.folder / "site.crt", self.folder / "site.key", self.folder / "client.crt")
        self.service = ApiService(
            reactor=reactor, host="127.0.0.1", port=self.port, view=make_view(self.heard), tls=tls
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def run_command(self, *arguments: str) -> Deferred[tuple[int, str]]:
        def run() -> tuple[int, str]:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*arguments, "--url", f"https://127.0.0.1:{self.port}", "--ca", f"{self.folder}/site.crt"])
            return code, out.getvalue() + err.getvalue()

        return deferToThread(run)

    async def test_client_certificate(self) -> None:
        """One of the authority may change things; none may only read; a stranger's gets nothing."""
        code, said = await self.run_command("drain", "web/w1", "--certificate", str(self.folder / "client.pem"))
        self.assertEqual((code, self.heard), (0, [("web", "w1", True)]), said)
        code, _ = await self.run_command("status")
        self.assertEqual(code, 0)
        code, said = await self.run_command("drain", "web/w1")
        self.assertEqual((code, len(self.heard)), (1, 1))
        self.assertIn("token", said)
        code, _ = await self.run_command("status", "--certificate", str(self.folder / "stranger.pem"))
        self.assertEqual((code, len(self.heard)), (1, 1))

    def test_wrong_files(self) -> None:
        """A key of another certificate is refused at the start."""
        tls = ConsoleTls(self.folder / "site.crt", self.folder / "client.key")
        service: Any = ApiService(reactor=None, host="127.0.0.1", port=1, view=make_view(), tls=tls)
        error: SystemRefused = self.assertRaises(SystemRefused, service.startService)
        self.assertIn("do not belong together", str(error))

    def test_configuration(self) -> None:
        """Others may reach the API only over TLS, and only when somebody could be let in."""
        for more, key in (
            ('status = "0.0.0.0:9080"', "console.status"),
            ('status = "0.0.0.0:9080"\ntls = { certificate = "a", key = "b" }', "console.tls"),
        ):
            error: BadConfig = self.assertRaises(BadConfig, parse, f"{BASE}[console]\n{more}\n")
            self.assertEqual([problem.key for problem in error.problems], [key])
        parse(f'{BASE}[console]\nstatus = "0.0.0.0:9080"\ntls = {{ certificate = "a", key = "b", client_ca = "c" }}\n')
