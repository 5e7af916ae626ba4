"""The API as a service of the node: on loopback TCP, and on the node's Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.web.server import Site

from lbarray.console.access import Access, read_token
from lbarray.console.api import api_site
from lbarray.console.listening import ConsolePort, ConsoleSocket
from lbarray.console.view import NodeView

__all__ = ["ApiService", "ApiSocketService", "socket_path"]


def socket_path(state_dir: Path, node: str) -> Path:
    """Where the node of this name has its Unix socket."""
    return state_dir / f"{node}.sock"


class ApiService(ConsolePort):
    """Over TCP. Loopback may read without a token.

    :param token_file: its first line is what callers need for changes; ``None``: no changes over TCP.
    """

    purpose = "status"
    key = "console.status"

    def __init__(self, *, reactor: Any, host: str, port: int, view: NodeView, token_file: Path | None = None) -> None:
        super().__init__(reactor=reactor, host=host, port=port)
        self._view = view
        self._token_file = token_file

    def make_factory(self) -> Site:
        """:raises SystemRefused: the token cannot be read, or could be guessed."""
        token = read_token(self._token_file) if self._token_file is not None else None
        return api_site(self._view, Access(token=token, names=frozenset([self._host])), self._reactor)


class ApiSocketService(ConsoleSocket):
    """Over the Unix socket: whoever may open it may do everything.

    :param required: an array node without it does not start; a standalone one says so and goes on.
    """

    def __init__(self, *, reactor: Any, state_dir: Path, view: NodeView, required: bool) -> None:
        super().__init__(
            reactor=reactor,
            path=socket_path(state_dir, view.node),
            factory=api_site(view, Access(), reactor),
            required=required,
        )
