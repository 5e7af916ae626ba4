"""The API as a service of the node: on loopback TCP, and on the node's Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.ssl import ContextFactory
from twisted.web.server import Site

from lbarray.config.console import ConsoleTls
from lbarray.console.access import Access, read_token
from lbarray.console.api import api_site
from lbarray.console.listening import ConsolePort, ConsoleSocket
from lbarray.console.view import NodeView
from lbarray.errors import SystemRefused

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

    def __init__(
        self,
        *,
        reactor: Any,
        host: str,
        port: int,
        view: NodeView,
        token_file: Path | None = None,
        tls: ConsoleTls | None = None,
    ) -> None:
        super().__init__(reactor=reactor, host=host, port=port)
        self._view = view
        self._token_file = token_file
        self._tls = tls

    def _listen(self, factory: Any) -> Any:
        if self._tls is None:
            return super()._listen(factory)
        contexts = _contexts(self._tls)
        return self._reactor.listenSSL(self._port, factory, contexts, interface=self._host)

    def make_factory(self) -> Site:
        """:raises SystemRefused: the token cannot be read, or could be guessed."""
        token = read_token(self._token_file) if self._token_file is not None else None
        return api_site(self._view, Access(token=token, names=frozenset([self._host])), self._reactor)


class _Contexts(ContextFactory):
    """One context for all connections."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


def _contexts(tls: ConsoleTls) -> ContextFactory:
    """TLS 1.2 and newer; a client certificate is asked for and, when one is shown, must be of ``client_ca``.

    :raises SystemRefused: a file will not do.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    try:
        context.use_certificate_chain_file(str(tls.certificate))
        context.use_privatekey_file(str(tls.key))
        context.check_privatekey()
        if tls.client_ca is not None:
            context.load_verify_locations(str(tls.client_ca))
            context.load_client_ca(str(tls.client_ca).encode())
            context.set_verify(SSL.VERIFY_PEER, lambda connection, certificate, error, depth, good: bool(good))
    except SSL.Error as error:
        raise SystemRefused(
            f"use the console's certificate {tls.certificate} with {tls.key}",
            detail=f"they are not PEM, or do not belong together ({error!r})",
            advice="see console.tls",
        ) from None
    return _Contexts(context)


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
