"""OCSP responses to staple (RFC 6960; RFC 6066 §8): made by somebody else, believed only while they are fresh."""

from __future__ import annotations

from pathlib import Path

import attrs
from cryptography import x509
from cryptography.x509 import ocsp

__all__ = ["Staple", "read_staple"]


@attrs.frozen
class Staple:
    """A response that may be stapled until ``not_after``, seconds since the epoch; empty octets for none.

    :ivar why: why there is none, for the operator.
    """

    octets: bytes = b""
    not_after: float = 0.0
    why: str = ""

    def at(self, now: float) -> bytes:
        """The octets, or none when it is too old: a stale response makes clients refuse the connection."""
        return self.octets if now < self.not_after else b""


def read_staple(path: Path, leaf: x509.Certificate, now: float) -> Staple:
    """The response in a file, if it is one that helps. Never raises: without a staple all clients still connect."""
    try:
        octets = path.read_bytes()
        response = ocsp.load_der_ocsp_response(octets)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            return Staple(why=f"the responder said {response.response_status.name.lower()}")
        if response.serial_number != leaf.serial_number:
            return Staple(why="it is about another certificate")
        until = response.next_update_utc
        not_after = until.timestamp() if until is not None else now + 3600.0
        status = response.certificate_status
    except OSError as error:
        return Staple(why=error.strerror or str(error))
    except ValueError:
        return Staple(why="no OCSP response in DER in it")
    if not_after <= now:
        return Staple(why="it has expired")
    if status is not ocsp.OCSPCertStatus.GOOD:
        return Staple(why=f"it says that the certificate is {status.name.lower()}")
    return Staple(octets, not_after)
