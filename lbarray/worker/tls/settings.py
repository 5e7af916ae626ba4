"""All that a service needs to know for TLS, as one frozen value."""

from __future__ import annotations

import attrs

from lbarray.worker.tls.certificates import CertificateFiles
from lbarray.worker.tls.contexts import ClientCertificates

__all__ = ["TlsSettings"]


@attrs.frozen(kw_only=True)
class TlsSettings:
    """TLS of one service; the names are those of ``[services.NAME.tls]``.

    :ivar files: the default certificate first.
    :ivar tells_sessions: a pool's persistence goes by TLS sessions, and has to see them.
    """

    files: tuple[CertificateFiles, ...]
    strict: bool = False
    profile: str = "intermediate"
    clients: ClientCertificates = ClientCertificates()
    handshake_timeout_s: float = 10.0
    handshakes_at_once: int = 512
    handshakes_per_second: int = 0
    reload_s: float = 10.0
    tells_sessions: bool = False
