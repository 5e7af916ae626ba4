"""Who may enter the manhole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.conch.insults.insults import ServerProtocol
from twisted.conch.interfaces import IConchUser
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from lbarray.console.manhole import ManholeService, Prompt
from lbarray.errors import SystemRefused
from tests.console.test_console import make_view


class ManholeTests(SynchronousTestCase):
    """Passwords, keys and the host's own key."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def make(self, *, keys: str | None = None, password: str | None = None) -> ManholeService:
        paths: list[Path | None] = []
        for name, text in (("authorized_keys", keys), ("password", password)):
            paths.append(None if text is None else self.folder / name)
            if text is not None:
                (self.folder / name).write_text(text)
        return ManholeService(
            reactor=Clock(),
            host="127.0.0.1",
            port=4722,
            user="admin",
            authorized_keys=paths[0],
            password_file=paths[1],
            state_dir=self.folder / "state",
            view=make_view(),
        )

    def login(self, service: ManholeService, user: bytes, password: bytes) -> Any:
        return service.make_factory().portal.login(UsernamePassword(user, password), None, IConchUser)

    def test_password(self) -> None:
        """The first line of the file, and nothing else."""
        service = self.make(password="right\nsecond\n")
        self.successResultOf(self.login(service, b"admin", b"right"))
        for user, password in ((b"admin", b"second"), (b"admin", b""), (b"root", b"right")):
            self.failureResultOf(self.login(service, user, password), UnauthorizedLogin)

    def test_no_password_with_keys(self) -> None:
        """Where only keys may enter, no password does."""
        service = self.make(keys="# nobody yet\n")
        self.failureResultOf(self.login(service, b"admin", b""), UnhandledCredentials)

    def test_damaged_keys(self) -> None:
        """A line that is no key is named by its number."""
        error: SystemRefused = self.assertRaises(SystemRefused, self.make(keys="# x\nssh-rsa nonsense\n").make_factory)
        self.assertIn("line 2", str(error))

    def test_host_key(self) -> None:
        """Made once, readable by its owner only, the same at the next start."""
        first = self.make(password="x").make_factory()
        again = self.make(password="x").make_factory()
        self.assertEqual(first.publicKeys, again.publicKeys)
        path = self.folder / "state" / "manhole_host_key"
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)


class PromptTests(SynchronousTestCase):
    """What is typed."""

    def setUp(self) -> None:
        self.history = Path(self.mktemp())

    def enter(self) -> Any:
        prompt = Prompt(make_view([]), self.history)
        prompt.who = "admin from 192.0.2.9"
        transport = StringTransport()
        server = ServerProtocol(lambda: prompt)
        server.makeConnection(transport)
        self.shown = transport
        return server

    def test_welcome_stays(self) -> None:
        """The terminal's size, which is told after the entrance, does not wipe the welcome away."""
        server = self.enter()
        before = self.shown.value()
        self.assertIn(b"Node a of array shop", before)
        server.terminalProtocol.terminalSize(132, 50)
        self.assertEqual(self.shown.value(), before)

    def test_completion(self) -> None:
        """TAB completes a name, and what can be done with it; several are shown."""
        server = self.enter()
        server.dataReceived(b"poo\t.dr\t")
        prompt = server.terminalProtocol
        self.assertEqual(b"".join(prompt.lineBuffer), b"pools.drain")
        server.dataReceived(b"\x03no\t.\t")
        self.assertIn(b"drain  handover", self.shown.value())

    def test_history(self) -> None:
        """Lines come back in the next session; the file is for its owner only."""
        self.enter().dataReceived(b"pools\rservices\r")
        self.assertEqual(self.history.stat().st_mode & 0o777, 0o600)
        again = self.enter()
        again.dataReceived(b"\x1b[A\x1b[A")
        self.assertEqual(b"".join(again.terminalProtocol.lineBuffer), b"pools")

    def test_logged(self) -> None:
        """What is typed is logged with who typed it."""
        lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        self.enter().dataReceived(b"pools.drain('web', 'w1')\r")
        typed = [line for line in lines if "typed in the manhole" in line]
        self.assertEqual(typed, ["typed in the manhole: pools.drain('web', 'w1') (admin from 192.0.2.9)"])
        self.assertTrue(any("by hand: drain-backend" in line and "192.0.2.9" in line for line in lines))
