"""An interactive prompt inside the daemon, over SSH."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
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
from twisted.internet.defer import Deferred

from lbarray.console.listening import ConsolePort
from lbarray.console.tables import array_table, failover_table, pools_table, services_table, table
from lbarray.console.view import NodeView
from lbarray.errors import ArrayError, SystemRefused

__all__ = ["ManholeService", "namespace"]


class _Shown:
    """Something that prints a table when its name is typed."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make

    def __repr__(self) -> str:
        return self._make()


class _Node(_Shown):
    def __init__(self, view: NodeView) -> None:
        super().__init__(lambda: _node_table(view))
        self._view = view

    def handover(self, to: str | None = None, vip: str | None = None) -> object:
        """Move the VIPs to the node ``to``, or to whoever is next in line; ``vip`` names only some of them."""
        return _said(self._view, "handover", to=to, vip=vip)

    def drain(self, draining: bool = True) -> object:
        """Take no new clients, or take them again."""
        return _said(self._view, "drain", draining=draining)


class _Pools(_Shown):
    def __init__(self, view: NodeView) -> None:
        super().__init__(lambda: pools_table(view.status()))
        self._view = view

    def drain(self, pool: str, backend: str, draining: bool = True) -> _Pools:
        """``pools.drain("web", "w1")``: no new clients for it; ``pools.drain("web", "w1", False)`` ends that."""
        _said(self._view, "drain-backend", pool=pool, backend=backend, draining=draining)
        return self


def _said(view: NodeView, action: str, **arguments: object) -> Any:
    """Perform an action, and what it says, now or as a Deferred, which the prompt waits for; so with its refusal."""
    try:
        result = view.actions.perform(action, arguments, "the manhole")
    except ArrayError as error:
        return str(error)
    if isinstance(result, Deferred):
        return result.addCallbacks(_in_words, lambda failure: str(failure.value))
    return _in_words(result)


def _in_words(result: object) -> str:
    return str(result.get("said", result)) if isinstance(result, dict) else repr(result)


def _node_table(view: NodeView) -> str:
    status = view.status()
    failover = status.get("failover")
    owned = failover.get("owned") if isinstance(failover, dict) else None
    rows: list[list[object]] = [
        ["node", view.node],
        ["array", view.array],
        ["version", view.version],
        ["up for s", status["uptime_s"]],
        ["owns", " ".join(owned) if isinstance(owned, list) else ""],
    ]
    rows += [[f"{name} {label}".strip(), value] for name, label, value in view.counters]
    return table(["what", "value"], rows)


def namespace(view: NodeView) -> dict[str, object]:
    """What an operator finds at the prompt."""
    return {
        "array": _Shown(lambda: array_table(view.status())),
        "node": _Node(view),
        "vip": _Shown(lambda: failover_table(view.status())),
        "services": _Shown(lambda: services_table(view.status())),
        "pools": _Pools(view),
        "view": view,
    }


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

    def openShell(self, proto: Any) -> None:
        self._process = proto
        self._shell = self.transportFactory(
            proto, self.chainedProtocolFactory(), IConchUser(self.original), self.width, self.height
        )

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

    def make_factory(self) -> ConchFactory:
        """:raises SystemRefused: a key is of no use."""
        realm = TerminalRealm()
        realm.sessionFactory = _Session
        realm.chainedProtocolFactory.protocolFactory = lambda _: ColoredManhole(namespace(self._view))
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
