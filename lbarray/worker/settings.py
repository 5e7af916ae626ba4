"""How one service speaks HTTP."""

from __future__ import annotations

import attrs

__all__ = ["HttpSettings"]


@attrs.frozen
class HttpSettings:
    """What clients of a service may do.

    :ivar upgrades: protocols that they may switch to, any case.
    :ivar http2: HTTP/2 is offered over TLS (ALPN).
    :ivar h2c: they may begin with HTTP/2 on a plain connection (prior knowledge, RFC 9113 §3.3).
    """

    upgrades: tuple[str, ...] = ("websocket",)
    http2: bool = True
    h2c: bool = False

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """Protocol names for ALPN (RFC 7301), the one we like best first."""
        return (b"h2", b"http/1.1") if self.http2 else (b"http/1.1",)
