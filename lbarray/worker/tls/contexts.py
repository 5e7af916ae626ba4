"""TLS contexts of services (RFC 8446), from PEM files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from OpenSSL import SSL, crypto
from twisted.internet.ssl import CertificateOptions, TLSVersion

from lbarray.errors import SystemRefused

__all__ = ["context_factory"]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SystemRefused(
            f"read the {what} {path}", errno=error.errno or 0, advice="put it there, or change services.NAME.tls"
        ) from None


def context_factory(certificate: Path, key: Path, *, service: str) -> CertificateOptions:
    """TLS 1.2 and 1.3 with this certificate, its chain behind it in the file, and its key.

    :raises SystemRefused: a file that is missing, is no PEM, or belongs to another one.
    """
    blocks = _PEM.findall(_read(certificate, "certificate"))
    try:
        chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except crypto.Error:
        chain = []
    if not chain:
        raise SystemRefused(
            f"use the certificate {certificate}", detail="no certificate in PEM in it", advice=f"service {service}"
        )
    try:
        private = crypto.load_privatekey(crypto.FILETYPE_PEM, _read(key, "key"), passphrase=b"")
    except (crypto.Error, ValueError, TypeError):
        raise SystemRefused(
            f"use the key {key}",
            detail="no private key in PEM without a passphrase in it",
            advice=f"service {service}",
        ) from None
    options = CertificateOptions(
        privateKey=private,
        certificate=chain[0],
        extraCertChain=chain[1:] or None,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        enableSessions=True,
        enableSessionTickets=True,
        acceptableProtocols=[b"http/1.1"],
    )
    try:
        context = options.getContext()
    except SSL.Error:
        raise SystemRefused(
            f"use {certificate} with {key}",
            detail="the key belongs to another certificate",
            advice=f"compare the public keys (openssl x509 -pubkey, openssl pkey -pubout) of service {service}",
        ) from None
    # Sessions are only taken up again by the service that they were made in.
    context.set_session_id(hashlib.sha256(service.encode()).digest()[:32])
    return options
