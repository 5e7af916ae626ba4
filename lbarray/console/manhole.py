"""An interactive prompt inside the daemon, over SSH."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from twisted.conch.checkers import InMemorySSHKeyDB, SSHPublicKeyChecker
from twisted.conch.interfaces import IConchUser
from twisted.conch.manhole import ColoredManhole
from twisted.conch.manhole_ssh import ConchFactory, TerminalRealm, TerminalSession
from twisted.conch.ssh.keys import BadKeyError, Key
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.logger import Logger

from lbarray.console.listening import ConsolePort
from lbarray.console.prompt import namespace, welcome
from lbarray.console.view import NodeView
from lbarray.errors import SystemRefused

__all__ = ["ManholeService", "Prompt"]


HISTORY_LINES = 500


class Prompt(ColoredManhole):
    """Twisted's prompt with completion, a history that outlives the session, a welcome, and a log of what is typed.

    :ivar who: the user and where they come from, for the log.
    """

    log = Logger()
    who = "unknown"

    def __init__(self, view: NodeView, history: Path) -> None:
        super().__init__(namespace(view, lambda: f"{self.who}, in the manhole"))
        self._view = view
        self._history = history

    def connectionMade(self) -> None:
        super().connectionMade()
        self.keyHandlers[b"\t"] = self.handle_TAB
        self.historyLines = self._remembered()
        self.historyPosition = len(self.historyLines)

    def initializeScreen(self) -> None:
        self.terminal.reset()
        self.terminal.write(welcome(self._view).encode() + b"\n")
        self.terminal.write(self.ps[self.pn])
        self.setInsertMode()

    def terminalSize(self, width: int, height: int) -> None:
        """Twisted's own clears the screen, and the welcome with it: the size is told right after the entrance."""
        self.width, self.height = width, height

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if text.strip():
            self.log.info("typed in the manhole: {text} ({who})", text=text[:1000], who=self.who)
            self._remember(text)
        super().lineReceived(line)

    def handle_TAB(self) -> None:
        """Complete the name before the cursor; several: as far as they agree, then all of them."""
        before = b"".join(self.lineBuffer[: self.lineBufferIndex]).decode("utf-8", "replace")
        word = re.search(r"[\w.]*\Z", before)
        assert word is not None
        found = _completions(self.namespace or {}, word[0])
        common = _agreed(found)
        if len(common) > len(word[0]):
            for character in common[len(word[0]) :]:
                self.characterReceived(character.encode(), False)
        elif len(found) > 1:
            self.terminal.nextLine()
            self.terminal.write("  ".join(each.rpartition(".")[2] for each in found).encode())
            self.terminal.nextLine()
            self.drawInputLine()

    def _remembered(self) -> list[bytes]:
        try:
            return self._history.read_bytes().splitlines()[-HISTORY_LINES:]
        except OSError:
            return []

    def _remember(self, text: str) -> None:
        try:
            new = not self._history.exists()
            with self._history.open("ab") as out:
                if new:
                    self._history.chmod(0o600)
                out.write(text.encode() + b"\n")
        except OSError:
            pass  # a prompt without a memory is still a prompt


def _agreed(names: Sequence[str]) -> str:
    """How all of these begin."""
    first, last = (min(names), max(names)) if names else ("", "")
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[:same]


def _completions(names: Mapping[str, Any], word: str) -> list[str]:
    """Every name that begins so; after a dot, of what stands before it. Nothing is called."""
    *path, last = word.split(".")
    if not path:
        return sorted(name for name in names if name.startswith(last) and not name.startswith("_"))
    thing: Any = names.get(path[0])
    for step in path[1:]:
        thing = getattr(thing, step, None)
    if thing is None:
        return []
    before = ".".join(path)
    shown = [
        name for name in dir(thing) if name.startswith(last) and (last.startswith("_") or not name.startswith("_"))
    ]
    return sorted(f"{before}.{name}" for name in shown)


def _host_key(folder: Path) -> Key:
    path = folder / "manhole_host_key"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            made = ed25519.Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
            )
            _write_once(path, made)
        key: Key = Key.fromFile(str(path))
        return key
    except (OSError, BadKeyError) as error:
        raise SystemRefused(
            f"use the manhole's host key {path}",
            errno=getattr(error, "errno", 0) or 0,
            detail="" if isinstance(error, OSError) else str(error),
            advice="set array.state_dir to a folder that this user may write to, or remove a damaged key",
        ) from None


def _write_once(path: Path, octets: bytes) -> None:
    """A file of its owner only that appears whole; when somebody else was first, theirs stands."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_bytes(octets)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


class _Session(TerminalSession):
    """A terminal that may change its size and end its input: Twisted's own knows neither."""

    user = ""

    def openShell(self, proto: Any) -> None:
        self._process = proto
        self._shell = self.transportFactory(
            proto, self.chainedProtocolFactory(), IConchUser(self.original), self.width, self.height
        )
        with contextlib.suppress(AttributeError):  # no terminal, or not over a network
            place = proto.session.conn.transport.transport.getPeer()
            self._shell.chainedProtocol.terminalProtocol.who = f"{self.user} from {place.host}"

    def windowChanged(self, size: tuple[int, int, int, int]) -> None:
        rows, columns = size[:2]
        self._shell.chainedProtocol.terminalProtocol.terminalSize(columns, rows)

    def eofReceived(self) -> None:
        """``echo pools | ssh …``: what was typed has been answered, so go."""
        self._process.loseConnection()


class ManholeService(ConsolePort):
    """The prompt. Whoever enters can do whatever the daemon can: keep it on loopback.

    :param authorized_keys: public keys that may enter, as OpenSSH writes them.
    :param password_file: its first line is the password.
    """

    purpose = "manhole"
    key = "console.manhole.listen"

    def __init__(
        self,
        *,
        reactor: Any,
        host: str,
        port: int,
        user: str,
        authorized_keys: Path | None,
        password_file: Path | None,
        state_dir: Path,
        view: NodeView,
    ) -> None:
        super().__init__(reactor=reactor, host=host, port=port)
        self._user = user
        self._authorized_keys = authorized_keys
        self._password_file = password_file
        self._state_dir = state_dir
        self._view = view

    def _session(self, avatar: Any) -> _Session:
        session = _Session(avatar)
        session.user = self._user
        return session

    def make_factory(self) -> ConchFactory:
        """:raises SystemRefused: a key is of no use."""
        realm = TerminalRealm()
        vars(realm)["sessionFactory"] = self._session  # a callable is enough, its type says a class
        history = self._state_dir / "manhole_history"
        realm.chainedProtocolFactory.protocolFactory = lambda _: Prompt(self._view, history)
        portal = Portal(realm)  # type: ignore[arg-type]  # TerminalRealm does provide IRealm, unannounced
        if self._authorized_keys is not None:
            keys = []
            for number, line in enumerate(self._authorized_keys.read_bytes().splitlines(), 1):
                if line.strip() and not line.lstrip().startswith(b"#"):
                    try:
                        keys.append(Key.fromString(line.strip()))
                    except BadKeyError:
                        raise SystemRefused(
                            f"use {self._authorized_keys}, line {number}", detail="no public key", advice="remove it"
                        ) from None
            portal.registerChecker(SSHPublicKeyChecker(InMemorySSHKeyDB({self._user.encode(): keys})))
        if self._password_file is not None:
            password = self._password_file.read_bytes().split(b"\n", 1)[0].strip()
            portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(**{self._user: password}))
        factory = ConchFactory(portal)
        key = _host_key(self._state_dir)
        # Set through the instance's dictionary: the class declares them as plain octets, wrongly.
        vars(factory).update(publicKeys={key.sshType(): key.public()}, privateKeys={key.sshType(): key})
        return factory
