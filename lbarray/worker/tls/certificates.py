"""Certificates as files: reading them, what they are for, and until when."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from lbarray.errors import SystemRefused

__all__ = ["Certificate", "CertificateFiles", "fingerprint_of_files", "read_certificate"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(rb"-----BEGIN ([A-Z]+ )?PRIVATE KEY-----.+?-----END ([A-Z]+ )?PRIVATE KEY-----", re.DOTALL)


@attrs.frozen
class CertificateFiles:
    """Where one certificate is.

    :ivar certificate: PEM: the certificate first, then its chain; the key too when ``key`` is not given.
    :ivar ocsp: an OCSP response in DER to staple, kept fresh by somebody else.
    """

    certificate: Path
    key: Path | None = None
    ocsp: Path | None = None

    def paths(self) -> Iterator[Path]:
        """Every file of it."""
        yield self.certificate
        if self.key is not None:
            yield self.key


@attrs.frozen
class Certificate:
    """One certificate with its chain and key, checked to belong together.

    :ivar kind: ``ecdsa``, ``rsa`` or ``eddsa``: clients that offer several get the first of these.
    :ivar not_after: when it ends, seconds since the epoch.
    """

    files: CertificateFiles
    chain: tuple[bytes, ...]
    key: bytes = attrs.field(repr=False)
    names: tuple[str, ...]
    kind: str
    not_after: float
    leaf: x509.Certificate = attrs.field(eq=False, repr=False)
    issuer: x509.Certificate | None = attrs.field(eq=False, repr=False)

    def days_left(self, now: float) -> float:
        """Until it ends; negative after that."""
        return (self.not_after - now) / 86400.0


def _read(path: Path, what: str, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SystemRefused(
            f"read the {what} {path}", errno=error.errno or 0, advice=f"put it there, or change {key}"
        ) from None


def read_certificate(files: CertificateFiles, *, key: str) -> Certificate:
    """Read and check one certificate.

    :param key: the configuration's name for it, for messages.
    :raises SystemRefused: a file that is missing, is no PEM, or belongs to another one.
    """
    text = _read(files.certificate, "certificate", key)
    blocks = _CERTIFICATE.findall(text)
    try:
        chain = [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError:
        chain = []
    if not chain:
        raise SystemRefused(
            f"use the certificate {files.certificate}", detail="no certificate in PEM in it", advice=key
        )
    key_text = text if files.key is None else _read(files.key, "key", key)
    key_block = _PRIVATE_KEY.search(key_text)
    key_path = files.key or files.certificate
    try:
        private = load_pem_private_key(key_block[0] if key_block else b"", password=None)
    except (ValueError, TypeError):
        raise SystemRefused(
            f"use the key {key_path}", detail="no private key in PEM without a passphrase in it", advice=key
        ) from None
    assert key_block is not None
    leaf = chain[0]
    public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*public) != leaf.public_key().public_bytes(*public):
        raise SystemRefused(
            f"use {files.certificate} with {key_path}",
            detail="the key belongs to another certificate",
            advice=f"compare the public keys (openssl x509 -pubkey, openssl pkey -pubout) of {key}",
        )
    return Certificate(
        files=files,
        chain=tuple(certificate.public_bytes(Encoding.PEM) for certificate in chain),
        key=bytes(key_block[0]) + b"\n",
        names=_names(leaf),
        kind=_kind(leaf, files.certificate, key),
        not_after=leaf.not_valid_after_utc.timestamp(),
        leaf=leaf,
        issuer=chain[1] if len(chain) > 1 else None,
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Its DNS names; the common name only when it says no other (RFC 9525 §2)."""
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(each.value) for each in common)
    return tuple(alternatives.get_values_for_type(x509.DNSName))


def _kind(leaf: x509.Certificate, path: Path, key: str) -> str:
    public = leaf.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        return "ecdsa"
    if isinstance(public, rsa.RSAPublicKey):
        return "rsa"
    if isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return "eddsa"
    raise SystemRefused(
        f"use the certificate {path}",
        detail=f"a key of the kind {type(public).__name__}",
        advice=f"{key} takes ECDSA, RSA or EdDSA",
    )


def fingerprint_of_files(paths: Sequence[Path]) -> tuple[tuple[int, int, int], ...]:
    """What changes whenever a file's content may have: compared by the background check. Missing files are zeros."""
    seen = []
    for path in paths:
        try:
            found = os.stat(path)
            seen.append((found.st_mtime_ns, found.st_size, found.st_ino))
        except OSError:
            seen.append((0, 0, 0))
    return tuple(seen)


def expiry_text(not_after: float) -> str:
    """When a certificate ends, for people: ``2027-03-01 12:00 UTC``."""
    return datetime.datetime.fromtimestamp(not_after, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
