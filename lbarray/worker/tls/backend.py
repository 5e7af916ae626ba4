"""TLS to back ends: whom we believe to be one, who we are to it, and sessions that are taken up again."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.logger import Logger

from lbarray.errors import SystemRefused
from lbarray.values import BackendAddress
from lbarray.worker.tls.stream import TlsStream

__all__ = ["BackendTls", "BackendTlsSettings"]

#: Sessions kept for back ends of one pool.
_SESSIONS = 1024


@attrs.frozen(kw_only=True)
class BackendTlsSettings:
    """TLS to one pool's back ends; the names are those of ``[pools.NAME.tls]``.

    :ivar key_path: the configuration's name for it, for messages.
    """

    key_path: str
    verify: bool = True
    ca: Path | None = None
    name: str | None = None
    certificate: Path | None = None
    key: Path | None = None


class BackendTls:
    """Makes and checks TLS connections to one pool's back ends.

    :raises SystemRefused: a file of the settings cannot be used.
    """

    log = Logger()

    def __init__(self, settings: BackendTlsSettings) -> None:
        self._settings = settings
        self._sessions: dict[tuple[str, int], Any] = {}
        context = self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
        if settings.verify:
            context.set_verify(SSL.VERIFY_PEER)
        self._use("authorities", settings.ca, self._trust)
        if settings.certificate is not None:
            self._use("certificate", settings.certificate, self._show)

    def _use(self, what: str, path: Path | None, load: Any) -> None:
        try:
            load(path)
        except SSL.Error as error:
            raise SystemRefused(
                f"use the {what} {path}", detail=str(error) or "no PEM", advice=self._settings.key_path
            ) from None

    def _trust(self, ca: Path | None) -> None:
        if ca is not None:
            self._context.load_verify_locations(str(ca))
        else:
            self._context.set_default_verify_paths()

    def _show(self, certificate: Path) -> None:
        self._context.use_certificate_chain_file(str(certificate))
        self._context.use_privatekey_file(str(self._settings.key or certificate))
        self._context.check_privatekey()

    def _name(self, backend: BackendAddress) -> str:
        return self._settings.name or backend.host

    def connection(self, sock: socket.socket, backend: BackendAddress) -> SSL.Connection:
        """The client's side of a connection, with the last session of this back end."""
        connection = SSL.Connection(self._context, sock)
        name = self._name(backend)
        if not _is_address(name):  # an address is no server_name (RFC 6066 §3)
            connection.set_tlsext_host_name(name.encode("idna" if not name.isascii() else "ascii"))
        session = self._sessions.get((backend.host, backend.port))
        if session is not None:
            connection.set_session(session)
        connection.set_connect_state()
        return connection

    def refuses(self, stream: TlsStream, backend: BackendAddress) -> str:
        """Whether the certificate is not this back end's (RFC 9525): a word for it, or ``""``."""
        if self._settings.verify:
            name = self._name(backend)
            try:
                if _is_address(name):
                    verify_ip_address(stream.tls, name)
                else:
                    verify_hostname(stream.tls, name)
            except (VerificationError, CertificateError) as error:
                self.log.warn("back end {backend} is not {name}: {error}", backend=backend, name=name, error=error)
                return "wrong_name"
        stream.on_close = self.keep_session, backend
        return ""

    def keep_session(self, stream: TlsStream, backend: BackendAddress) -> None:
        """Remember a connection's session; with TLS 1.3 it comes after the handshake, so at the connection's end."""
        session = stream.tls.get_session()
        if session is not None:
            if len(self._sessions) >= _SESSIONS:
                self._sessions.pop(next(iter(self._sessions)))
            self._sessions[backend.host, backend.port] = session


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
