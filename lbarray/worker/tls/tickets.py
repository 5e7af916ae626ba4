"""What a handshake shows of TLS sessions: those that a client brings, and those that it is given.

A session ticket is sealed, and only the process that made it can open it. But the client brings it back octet for
octet, so whoever has seen it go out knows it again, also where it cannot be opened. In TLS 1.3 each handshake gives out
new ones (RFC 8446 §4.6.1): a session is a chain of tickets, each known by the one before it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from lbarray.values import TLS_SESSION_OCTETS, TlsSession

__all__ = ["HANDSHAKE", "HandshakeSessions", "issued", "presented"]

#: The content type of handshake messages (RFC 8446 §5.1).
HANDSHAKE: Final = 22
_CLIENT_HELLO, _SERVER_HELLO, _NEW_SESSION_TICKET = 1, 2, 4
_SESSION_TICKET, _PRE_SHARED_KEY, _SUPPORTED_VERSIONS = 35, 41, 43
_TLS13 = 0x0304
#: More than clients bring: OpenSSL, browsers and curl bring one.
_MOST_PRESENTED = 4


class _Reader:
    """Vectors of the TLS presentation language (RFC 8446 §3.4); an :exc:`IndexError` where the octets end."""

    __slots__ = ("_at", "_octets")

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._octets)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._octets):
            raise IndexError(end)
        taken = self._octets[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Octets after their number, which has ``size`` octets."""
        return self.take(self.number(size))


def presented(message: bytes) -> list[bytes]:
    """The sessions that a ClientHello would take up again: tickets of TLS 1.3 (RFC 8446 §4.2.11), a ticket of TLS 1.2
    (RFC 5077 §3.2), and, of a client that knows no more than TLS 1.2, the session id. None of a message that is another
    or cannot be read: OpenSSL judges it, not we."""
    found: list[bytes] = []
    try:
        hello = _Reader(message)
        if hello.number(1) != _CLIENT_HELLO:
            return []
        hello.take(3 + 2 + 32)  # length, version, random
        session_id = hello.vector(1)
        hello.vector(2)  # cipher suites
        hello.vector(1)  # compression
        extensions = _Reader(hello.vector(2)) if hello else _Reader(b"")
        while extensions:
            kind = extensions.number(2)
            content = extensions.vector(2)
            if kind == _SESSION_TICKET:
                found.append(content)
            elif kind == _PRE_SHARED_KEY:
                identities = _Reader(_Reader(content).vector(2))
                while identities and len(found) < _MOST_PRESENTED:
                    found.append(identities.vector(2))
                    identities.take(4)  # its age
            elif kind == _SUPPORTED_VERSIONS:
                session_id = b""  # there only for the middleboxes (RFC 8446 §4.1.2)
    except IndexError:
        return []
    return [each for each in (*found, session_id) if each]


def issued(message: bytes, version: int) -> bytes:
    """The session that a server's message gives out: a NewSessionTicket's, or the id in a ServerHello of TLS 1.2.
    Nothing of other messages.

    :param version: what is spoken, such as 0x0304.
    """
    try:
        reader = _Reader(message)
        kind = reader.number(1)
        if kind == _NEW_SESSION_TICKET:
            reader.take(3 + 4)  # length, lifetime
            if version >= _TLS13:
                reader.take(4)  # what is added to its age
                reader.vector(1)  # nonce
            return reader.vector(2)
        if kind == _SERVER_HELLO and version < _TLS13:
            reader.take(3 + 2 + 32)  # length, version, random
            return reader.vector(1)
    except IndexError:
        pass
    return b""


class HandshakeSessions:
    """Gathers what one handshake shows."""

    __slots__ = ("_issued", "_presented")

    def __init__(self) -> None:
        self._presented: dict[bytes, None] = {}
        self._issued: dict[bytes, None] = {}

    def message(self, ours: bool, version: int, message: bytes) -> None:
        """A handshake message, whole. ``ours``: the server's."""
        if ours:
            if ticket := issued(message, version):
                self._issued[_key(ticket)] = None
        else:
            for ticket in presented(message):
                self._presented[_key(ticket)] = None

    def session(self) -> TlsSession:
        """What is known when the handshake is done."""
        return TlsSession(tuple(self._presented), tuple(self._issued))


def _key(ticket: bytes) -> bytes:
    return blake2b(ticket, digest_size=TLS_SESSION_OCTETS).digest()
