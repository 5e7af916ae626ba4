"""A certificate authority made on the spot: servers, clients and OCSP responses for tests and demonstrations."""

from __future__ import annotations

import datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp

__all__ = ["Authority"]

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Authority:
    """Issues certificates into a folder.

    :ivar path: its own certificate, PEM.
    """

    def __init__(self, folder: Path, name: str = "Testbed Authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued: dict[str, x509.Certificate] = {}
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=60))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = folder / f"{name.replace(' ', '-').lower()}.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, stem: str, *names: str, kind: str = "ecdsa", days: float = 30.0) -> tuple[Path, Path]:
        """A certificate for these names and addresses, its issuer behind it, and its key.

        :param kind: ``ecdsa`` (P-256) or ``rsa`` (2048 bits).
        :param days: until it ends; negative for one that has ended.
        """
        key: Key = (
            ec.generate_private_key(ec.SECP256R1())
            if kind == "ecdsa"
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=40))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._issued[stem] = certificate
        certificate_path, key_path = self._folder / f"{stem}.crt", self._folder / f"{stem}.key"
        pem = serialization.Encoding.PEM
        certificate_path.write_bytes(certificate.public_bytes(pem) + self.certificate.public_bytes(pem))
        key_path.touch(mode=0o600)
        key_path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate_path, key_path

    def ocsp(self, stem: str, *, hours: float = 24.0, good: bool = True) -> Path:
        """A response for an issued certificate: good, or revoked; fresh for so many hours."""
        now = datetime.datetime.now(datetime.UTC)
        response = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self._issued[stem],
                issuer=self.certificate,
                algorithm=hashes.SHA1(),  # names the certificate; RFC 6960 has no other default
                cert_status=ocsp.OCSPCertStatus.GOOD if good else ocsp.OCSPCertStatus.REVOKED,
                this_update=now - datetime.timedelta(hours=48),
                next_update=now + datetime.timedelta(hours=hours),
                revocation_time=None if good else now - datetime.timedelta(hours=49),
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.NAME, self.certificate)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{stem}.ocsp"
        path.write_bytes(response.public_bytes(serialization.Encoding.DER))
        return path


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
