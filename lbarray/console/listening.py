"""A factory behind a TCP port, as a service that says clearly when it cannot be."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError

from lbarray.errors import SystemRefused

__all__ = ["ConsolePort"]


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

    def startService(self) -> None:
        """:raises SystemRefused: the port is taken."""
        factory = self.make_factory()
        try:
            self._listening = self._reactor.listenTCP(self._port, factory, interface=self._host)
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
