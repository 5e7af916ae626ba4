"""Commands that ask a node: over its real Unix socket."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from lbarray.commands import main
from lbarray.commands.client import NodeClient
from lbarray.console.service import ApiSocketService, socket_path
from lbarray.errors import SystemRefused
from tests.console.test_console import make_view


class SocketTests(TestCase):
    """A node's socket, and the commands that use it."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.heard: list[tuple[object, ...]] = []
        # A socket's path has at most 107 octets, less than trial's temporary folder may have.
        import tempfile

        temporary = tempfile.TemporaryDirectory(prefix="lbarray-test-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name) / "state"
        self.service = self.make(reactor)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    def make(self, reactor: Any, *, required: bool = True) -> ApiSocketService:
        return ApiSocketService(reactor=reactor, state_dir=self.folder, view=make_view(self.heard), required=required)

    def run_command(self, *arguments: str) -> Deferred[tuple[int, str, str]]:
        def run() -> tuple[int, str, str]:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([*arguments, "--socket", str(socket_path(self.folder, "a"))])
            return code, out.getvalue(), err.getvalue()

        return deferToThread(run)

    async def test_status(self) -> None:
        """Tables for people; the node's JSON for programs."""
        code, out, _ = await self.run_command("status")
        self.assertEqual(code, 0)
        self.assertIn("192.0.2.21:80", out)
        _, out, _ = await self.run_command("status", "--json")
        self.assertEqual(json.loads(out)["node"], "a")

    async def test_drain(self) -> None:
        """A back end, the node, and the end of it."""
        for arguments in (["web/w1"], []):
            for command in ("drain", "undrain"):
                code, out, _ = await self.run_command(command, *arguments)
                self.assertEqual(code, 0, out)
        self.assertEqual(self.heard, [("web", "w1", True), ("web", "w1", False), (True,), (False,)])

    async def test_weigh(self) -> None:
        """A node by its name, a back end by its pool's and its own."""
        for arguments, said in ((["b", "30"], "node b"), (["web/w1", "3"], "back end web/w1")):
            code, out, err = await self.run_command("weigh", *arguments)
            self.assertEqual((code, out), (0, f"{said} weighs {arguments[1]}\n"), err)

    async def test_drain_and_wait(self) -> None:
        """Whoever waits sees what is left, until nothing is."""
        code, out, _ = await self.run_command("drain", "--wait")
        self.assertEqual((code, out.splitlines()[1:]), (0, ["node a: 1 connections left", "node a is empty"]))

    async def test_refused(self) -> None:
        """What the node refuses is said in its own words, exit 1."""
        code, out, err = await self.run_command("drain", "web/w9")
        self.assertEqual((code, out, err), (1, "", "lbarray: no back end web/w9\n"))

    def test_permissions(self) -> None:
        """Only the owner may open the socket."""
        self.assertEqual(self.service.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.service.path.parent.stat().st_mode & 0o777, 0o700)

    def test_second_node(self) -> None:
        """A second node of the same name does not take the socket from the first."""
        from twisted.internet import reactor

        error: SystemRefused = self.assertRaises(SystemRefused, self.make(reactor).startService)
        self.assertIn("runs already", str(error))
        self.make(reactor, required=False).startService()
        self.assertTrue(self.service.path.exists())

    async def test_leftover(self) -> None:
        """The socket of a killed node is replaced."""
        from twisted.internet import reactor

        path = socket_path(self.folder, "a")
        await self.service.stopService()
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        again = self.make(reactor)
        again.startService()
        self.addCleanup(again.stopService)
        code, _, err = await self.run_command("status")
        self.assertEqual(code, 0, err)

    def test_found_in_folder(self) -> None:
        """The only socket in the folder is the node that is meant; of several one must be named."""
        config = self.folder.parent / "lbarray.toml"
        config.write_text(
            f'[array]\nstate_dir = "{self.folder}"\n[services.http]\naddress = "127.0.0.1"\nport = 8080\n'
            '[pools.p.backends.b]\naddress = "127.0.0.1:1"\n'
        )
        self.assertEqual(NodeClient.find(config=config).where, str(self.folder / "a.sock"))
        other = socket.socket(socket.AF_UNIX)
        self.addCleanup(other.close)
        other.bind(str(self.folder / "b.sock"))
        other.listen()
        error: SystemRefused = self.assertRaises(SystemRefused, NodeClient.find, config=config)
        self.assertIn("a, b", str(error))
        self.assertEqual(NodeClient.find(config=config, node="b").where, str(self.folder / "b.sock"))

    async def test_killed_beside(self) -> None:
        """Of several sockets those count that somebody listens at: a killed node's makes nobody choose."""
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(self.folder / "b.sock"))
        config = self.folder.parent / "lbarray.toml"
        config.write_text(
            f'[array]\nstate_dir = "{self.folder}"\n[services.http]\naddress = "127.0.0.1"\nport = 8080\n'
            '[pools.p.backends.b]\naddress = "127.0.0.1:1"\n'
        )
        self.assertEqual(NodeClient.find(config=config).where, str(self.folder / "a.sock"))

    async def test_nobody(self) -> None:
        """Where no node listens, the command says so and what to do."""
        await self.service.stopService()
        code, _, err = await self.run_command("status")
        self.assertEqual(code, 1)
        self.assertIn("systemctl status lbarray", err)
        self.assertNotIn("Traceback", err)
