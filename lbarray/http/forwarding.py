"""What a back end is told of the client, and what of it is believed (RFC 7239, and the X-Forwarded- fields).

A client may say of itself whatever it likes, so its fields on forwarding are dropped. Of a trusted hop, such as a CDN
or another balancer before us, they are kept and added to, and the client is the last address in its list that is
not a trusted hop itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from lbarray.http.events import Fields
from lbarray.http.fields import VIA

__all__ = ["STYLES", "Forwarding"]

#: Which fields are written: ``X-Forwarded-For``, ``-Proto`` and ``-Host``; ``Forwarded``; all of them.
STYLES = ("x-forwarded", "forwarded", "both")

_MAX_HOPS = 64


class Forwarding:
    """How forwarding is told and believed by one service.

    :param style: one of :data:`STYLES`.
    :param trusted: networks of hops whose fields are kept.
    :ivar traces: a request that has no trace gets one (:mod:`lbarray.http.tracing`).
    """

    def __init__(
        self,
        *,
        style: str = "x-forwarded",
        trusted: Sequence[IPv4Network | IPv6Network] = (),
        via: bytes = VIA,
        traces: bool = False,
    ) -> None:
        self.traces = traces
        self._x = style in ("x-forwarded", "both")
        self._rfc = style in ("forwarded", "both")
        self._trusted = tuple(trusted)
        self._via = b"Via: %b\r\n" % via

    def trusts(self, host: str) -> bool:
        """Is this address one of the trusted hops?"""
        if not self._trusted:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._trusted)

    def lines(self, client: str, host: bytes, *, tls: bool) -> bytes:
        """The lines for a request of a client that is nobody's hop. ``host``: the value of Host."""
        return self._written([client.encode()], b"https" if tls else b"http", host, b"")

    def of_trusted(self, peer: str, said: Fields, host: bytes, *, tls: bool) -> tuple[str, bytes]:
        """(the client's address, the lines) for a request that a trusted hop passed on.

        :param said: its fields on forwarding.
        """
        hops: list[bytes] = []
        proto = b"https" if tls else b"http"
        forwarded = b""
        for name, value in said:
            lower = name.lower()
            if lower == b"x-forwarded-for":
                hops += [hop.strip() for hop in value.split(b",")]
            elif lower == b"x-forwarded-proto":
                proto = value if value in (b"http", b"https") else proto
            elif lower == b"x-forwarded-host":
                host = value
            elif lower == b"forwarded":
                forwarded = forwarded + b", " + value if forwarded else value
        if not hops and forwarded:
            hops = _hops_of(forwarded)
        hops = [*hops[-_MAX_HOPS:], peer.encode()]
        client = peer
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            client = address
            if not self.trusts(address):
                break
        return client, self._written(hops, proto, host, forwarded)

    def _written(self, hops: list[bytes], proto: bytes, host: bytes, forwarded: bytes) -> bytes:
        lines = b""
        if self._x:
            lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (b", ".join(hops), proto)
            if host:
                lines += b"X-Forwarded-Host: %b\r\n" % host
        if self._rfc:
            hop = hops[-1]
            own = b"for=%b;proto=%b" % (b'"[%b]"' % hop if b":" in hop else hop, proto)
            if host:
                own += b';host="%b"' % host if b":" in host else b";host=%b" % host
            lines += b"Forwarded: %b\r\n" % (forwarded + b", " + own if forwarded else own)
        return lines + self._via


def _address(hop: bytes) -> str | None:
    """An address with or without brackets and port, ``None`` for anything else (obfuscated, unknown)."""
    text = hop.strip(b'" \t').decode("latin-1")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _hops_of(forwarded: bytes) -> list[bytes]:
    """The addresses of a Forwarded field, in order (RFC 7239 §4)."""
    hops = []
    for element in forwarded.split(b","):
        for pair in element.split(b";"):
            key, _, value = pair.partition(b"=")
            if key.strip().lower() == b"for":
                hops.append(value.strip().strip(b'"'))
    return hops
