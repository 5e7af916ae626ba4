"""OpenSSL contexts for services and for back ends (RFC 8446, BCP 195, Mozilla's server side TLS)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib

from lbarray.errors import SystemRefused
from lbarray.worker.tls.certificates import Certificate
from lbarray.worker.tls.tickets import HANDSHAKE

__all__ = ["ClientCertificates", "Policy", "base_context", "certificate_context", "on_server_name"]

#: Mozilla, intermediate, for TLS 1.2: all of them with forward secrecy and authenticated encryption.
_TLS12_CIPHERS = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_TLS13_CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
_GROUPS = (b"X25519MLKEM768:X25519:prime256v1:secp384r1", b"X25519:prime256v1:secp384r1")
_NO_RENEGOTIATION = getattr(SSL, "OP_NO_RENEGOTIATION", 1 << 30)
_TICKET_LIFETIME_S = 86400


@attrs.frozen
class ClientCertificates:
    """Whether clients show certificates.

    :ivar mode: ``off``, ``optional`` or ``required``.
    :ivar ca: PEM of the authorities whose certificates are believed.
    """

    mode: str = "off"
    ca: Path | None = None


@attrs.frozen
class Policy:
    """What a service speaks.

    :ivar profile: ``intermediate`` (TLS 1.2 and 1.3) or ``modern`` (1.3 only).
    :ivar protocols: for ALPN, the one we like best first.
    :ivar tells_sessions: connections note the sessions that their handshakes show.
    """

    profile: str = "intermediate"
    protocols: tuple[bytes, ...] = (b"http/1.1",)
    clients: ClientCertificates = ClientCertificates()
    tells_sessions: bool = False


def base_context(policy: Policy, *, session_id: bytes, key: str) -> SSL.Context:
    """A server's context without a certificate.

    :param session_id: up to 32 octets; sessions are taken up again only by contexts with the same ones.
    :param key: the configuration's name for it, for messages.
    :raises SystemRefused: the authorities of client certificates cannot be read.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION if policy.profile == "modern" else SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | _NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE)
    # The client's order of ciphers counts: it knows whether it has AES in hardware.
    context.set_cipher_list(_TLS12_CIPHERS)
    context.set_tls13_ciphersuites(_TLS13_CIPHERS)
    _set_groups(context)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    context.set_timeout(_TICKET_LIFETIME_S)
    context.set_session_id(session_id)
    if policy.protocols:
        context.set_alpn_select_callback(_alpn(policy.protocols))
    _ask_clients(context, policy.clients, key)
    if policy.tells_sessions:
        _lib.SSL_CTX_set_msg_callback(context._context, _note_sessions)
    return context


def _set_groups(context: SSL.Context) -> None:
    for groups in _GROUPS:  # the post-quantum hybrid is not in every OpenSSL
        if _lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            return
        _lib.ERR_clear_error()


def _alpn(ours: Sequence[bytes]) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def choose(connection: SSL.Connection, theirs: list[bytes]) -> Any:
        for protocol in ours:
            if protocol in theirs:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    return choose


@_ffi.callback("void (*)(int, int, int, const void *, size_t, SSL *, void *)")  # type: ignore[untyped-decorator]
def _note_sessions(ours: int, version: int, kind: int, octets: Any, size: int, ssl: Any, argument: Any) -> None:
    """Let the :class:`HandshakeSessions` that a connection carries hear its handshake.

    OpenSSL tells of each record too, and goes on doing so after the handshake: that is a microsecond and a half for
    each request and its response. It is one for all, since connections outlive the context that they were made from.
    """
    if kind != HANDSHAKE:
        return
    connection = SSL.Connection._reverse_mapping.get(ssl)
    if connection is not None and (seen := connection.get_app_data()) is not None:
        seen.message(bool(ours), version, bytes(_ffi.buffer(octets, size)))


def _ask_clients(context: SSL.Context, clients: ClientCertificates, key: str) -> None:
    if clients.mode == "off" or clients.ca is None:
        return
    try:
        context.load_verify_locations(str(clients.ca))
        context.load_client_ca(str(clients.ca).encode())
    except SSL.Error:
        raise SystemRefused(
            f"use the authorities in {clients.ca}", detail="no certificates in PEM in it", advice=f"{key}.client_ca"
        ) from None
    mode = SSL.VERIFY_PEER
    if clients.mode == "required":
        mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
    context.set_verify(mode)


def certificate_context(
    policy: Policy, certificates: Sequence[Certificate], *, session_id: bytes, key: str
) -> SSL.Context:
    """A context with these certificates, at most one of each kind: OpenSSL takes the one that the client's signature
    algorithms allow, in the client's order.

    :raises SystemRefused: OpenSSL does not take one of them.
    """
    context = base_context(policy, session_id=session_id, key=key)
    for certificate in certificates:
        # Each certificate has a chain of its own only when it is read from a file: this one is nowhere on disk, and
        # holds exactly what was checked.
        fd = os.memfd_create("certificate")
        try:
            os.write(fd, b"".join(certificate.chain) + certificate.key)
            path = f"/proc/self/fd/{fd}"
            context.use_certificate_chain_file(path)
            context.use_privatekey_file(path)
        except SSL.Error as error:
            raise SystemRefused(
                f"use the certificate {certificate.files.certificate}", detail=str(error), advice=key
            ) from None
        finally:
            os.close(fd)
    return context


def on_server_name(context: SSL.Context, choose: Callable[[str | None], SSL.Context | None]) -> None:
    """Let ``choose`` find the context for the name that a client asks for; ``None`` refuses the client with
    ``unrecognized_name`` (RFC 6066 §3)."""

    def callback(ssl: Any, alert: Any, argument: Any) -> int:
        connection = SSL.Connection._reverse_mapping[ssl]
        asked = _lib.SSL_get_servername(ssl, 0)
        try:
            chosen = choose(_ffi.string(asked).decode("ascii") if asked != _ffi.NULL else None)
        except UnicodeDecodeError:
            chosen = None
        if chosen is None:
            return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        connection.set_context(chosen)
        return int(_lib.SSL_TLSEXT_ERR_OK)

    # Kept by the context: OpenSSL calls it as long as the context lives.
    context._tlsext_servername_callback = _ffi.callback("int (*)(SSL *, int *, void *)", callback, error=2)
    _lib.SSL_CTX_set_tlsext_servername_callback(context._context, context._tlsext_servername_callback)
