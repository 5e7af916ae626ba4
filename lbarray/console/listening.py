"""A factory behind a port, as a service that says clearly when it cannot be."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from lbarray.errors import SystemRefused

__all__ = ["ConsolePort", "ConsoleSocket"]


class ConsolePort(Service):
    """Listens on ``host`` and ``port`` while it runs; a subclass makes the factory.

    :cvar purpose: what it is, for the operator; :cvar key: where its address is configured.
    """

    purpose = ""
    key = ""

    def __init__(self, *, reactor: Any, host: str, port: int) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._listening: Any = None

    def make_factory(self) -> Any:
        """The factory of its connections."""
        raise AssertionError("a subclass makes it")

    def _listen(self, factory: Any) -> Any:
        return self._reactor.listenTCP(self._port, factory, interface=self._host)

    def startService(self) -> None:
        """:raises SystemRefused: the port is taken."""
        factory = self.make_factory()
        try:
            self._listening = self._listen(factory)
        except CannotListenError as error:
            raise SystemRefused(
                f"listen for the {self.purpose} on TCP {self._host}:{self._port}",
                errno=getattr(error.socketError, "errno", 0) or 0,
                advice=f"see who has it: ss -ltnp 'sport = :{self._port}'; or set {self.key}",
            ) from None
        super().startService()

    def stopService(self) -> Any:
        super().stopService()
        listening, self._listening = self._listening, None
        return listening.stopListening() if listening is not None else None


class ConsoleSocket(Service):
    """Listens on a Unix socket that only its owner and root may open: whoever may needs no password.

    :param path: its folder is made if it is not there, for its owner only; a killed node's socket is replaced.
    :param required: without the socket the service does not start; otherwise it says so and goes on.
    """

    log = Logger()

    def __init__(self, *, reactor: Any, path: Path, factory: Any, required: bool = True) -> None:
        self.path = path
        self._reactor = reactor
        self._factory = factory
        self._required = required
        self._listening: Any = None

    def startService(self) -> None:
        """:raises SystemRefused: it is required, and cannot be made or is another running node's."""
        try:
            self._listen()
        except SystemRefused as error:
            if self._required:
                raise
            self.log.warn("{error}; commands of lbarray can only read, over TCP", error=error)
        super().startService()

    def _listen(self) -> None:
        path = self.path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _remove_leftover(path)
            before = os.umask(0o177)
            try:
                self._listening = self._reactor.listenUNIX(str(path), self._factory, mode=0o600)
            finally:
                os.umask(before)
        except CannotListenError as error:
            detail = str(error.socketError)
            raise SystemRefused(
                f"listen on the Unix socket {path}",
                detail=detail,
                advice="its path may have 107 octets, and its folder must be writable: see array.state_dir",
            ) from None
        except OSError as error:
            raise SystemRefused(
                f"make the Unix socket {path}",
                errno=error.errno or 0,
                advice="set array.state_dir to a folder that this user may write to",
            ) from None

    def stopService(self) -> Any:
        super().stopService()
        listening, self._listening = self._listening, None
        return listening.stopListening() if listening is not None else None


def _remove_leftover(path: Path) -> None:
    """:raises SystemRefused: it is no socket, or somebody listens on it."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SystemRefused(f"use {path} as a Unix socket", detail="it is something else", advice="remove it")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.setblocking(False)
        try:
            other.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # its queue is full: somebody is there
    raise SystemRefused(
        f"listen on the Unix socket {path}",
        detail="a node of this name runs already",
        advice="stop it first, or give this one another name or array.state_dir",
    )
