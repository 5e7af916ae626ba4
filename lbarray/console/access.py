"""Who may ask what: the Unix socket's file is its own guard, loopback may read, a token may change."""

from __future__ import annotations

import hmac
import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.address import UNIXAddress
from twisted.web.http import Request

from lbarray.errors import SystemRefused

__all__ = ["Access", "Caller", "read_token"]


@attrs.frozen
class Caller:
    """Who asks, in words, and what they may do."""

    who: str
    may_read: bool
    may_change: bool


def read_token(path: Path) -> bytes:
    """The token in the first line of a file.

    :raises SystemRefused: no such file, or a token that could be guessed.
    """
    try:
        token = path.read_bytes().split(b"\n", 1)[0].strip()
    except OSError as error:
        raise SystemRefused(
            f"read the API token {path}", errno=error.errno or 0, advice=f"openssl rand -hex 32 > {path}"
        ) from None
    if len(token) < 16:
        raise SystemRefused(
            f"use the API token {path}",
            detail="fewer than 16 octets",
            advice=f"openssl rand -hex 32 > {path}; chmod 600 {path}",
        )
    return token


def _peer_of_unix_socket(request: Request) -> str:
    """The user at the other end (``SO_PEERCRED``, unix(7))."""
    transport: Any = request.channel and request.channel.transport
    try:
        octets = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("3i", octets)
    except (AttributeError, OSError):
        return "unknown user over the Unix socket"
    return f"uid {uid}, process {pid}, over the Unix socket"


def is_loopback(host: str) -> bool:
    """Is it an address of this machine that others cannot reach?"""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@attrs.frozen
class Access:
    """Decides for each request.

    :ivar token: what a caller that is not at the Unix socket needs to change something; ``None``: it cannot.
    :ivar names: host names by which the API may be asked, besides addresses and ``localhost``.
    """

    token: bytes | None = None
    names: frozenset[str] = frozenset()

    def of(self, request: Request) -> Caller:
        """Who sent this request."""
        peer = request.getClientAddress()
        if isinstance(peer, UNIXAddress):
            return Caller(_peer_of_unix_socket(request), True, True)
        host = getattr(peer, "host", "")
        if not self._host_is_ours(request):
            # A page of some other site whose name was made to mean 127.0.0.1 (DNS rebinding) must not read us.
            return Caller(f"{host} with a foreign Host field", False, False)
        certificate = _client_certificate(request)
        if certificate:
            return Caller(f"certificate {certificate} from {host}", True, True)
        if self._has_token(request):
            return Caller(f"token from {host}", True, True)
        return Caller(host, is_loopback(host), False)

    def _host_is_ours(self, request: Request) -> bool:
        name = request.getRequestHostname().decode("ascii", "replace").strip("[]").lower()
        try:
            ip_address(name)
        except ValueError:
            return name == "localhost" or name in self.names
        return True

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = (request.getHeader(b"authorization") or b"").partition(b" ")
        return self.token is not None and scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token)


def _client_certificate(request: Request) -> str:
    """The common name of a verified client certificate, empty for none."""
    transport: Any = request.channel and request.channel.transport
    get = getattr(transport, "getPeerCertificate", None)
    certificate = get() if get is not None else None
    return str(certificate.get_subject().CN) if certificate is not None else ""
