"""TLS connections without layers: OpenSSL reads and writes the socket itself.

Twisted puts a memory BIO, a protocol and a transport between a socket and a protocol: each reading is copied four times
and asked for twice. Here one call to OpenSSL reads a record from the socket, and one writes one. This module is the
only one that calls pyOpenSSL's bindings directly: its ``Connection.recv`` and ``send`` cost half as much again.

The protocol meets its transport when the handshake is done, so that what was negotiated is known, and a client that
never finishes its handshake costs little.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi as _ffi
from OpenSSL._util import lib as _lib
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from lbarray.worker.stream import DONE, Stream

__all__ = ["HandshakeFailed", "TlsStream", "reason_of"]

#: A record holds up to 2^14 octets (RFC 8446 §5.1): with a larger buffer, nothing stays behind in OpenSSL.
_RECORD = 16384 + 512
#: Octets given to OpenSSL at once; it makes records of them.
_WRITE_SIZE = 262144
#: Records read in one turn before others have theirs.
_RECORDS_PER_TURN = 8

_TCP, _CORK = socket.IPPROTO_TCP, socket.TCP_CORK

_buffer = _ffi.new("char[]", _RECORD)
_view = _ffi.buffer(_buffer, _RECORD)
_read = _lib.SSL_read
_write = _lib.SSL_write
_get_error = _lib.SSL_get_error
_WANT_READ = _lib.SSL_ERROR_WANT_READ
_WANT_WRITE = _lib.SSL_ERROR_WANT_WRITE
_ZERO_RETURN = _lib.SSL_ERROR_ZERO_RETURN


class HandshakeFailed(ConnectionLost):
    """The peer and we could not agree. ``why``: OpenSSL's word for it, snake_case."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def reason_of() -> str:
    """The first error in OpenSSL's queue as a short word; empties the queue."""
    code = _lib.ERR_peek_error()
    _lib.ERR_clear_error()
    if code == 0:
        return "closed"
    text = _ffi.string(_lib.ERR_reason_error_string(code)) if _lib.ERR_reason_error_string(code) else b"unknown"
    return text.decode("ascii", "replace").replace(" ", "_").replace("/", "_")[:48]


class TlsStream(Stream):
    """One TLS connection.

    :param connection: pyOpenSSL's, made for ``sock``, with its side (server or client) set.
    :param ready: called once with this stream when the handshake is done; sets ``protocol`` and opens, or ends it.
    :param failed: called once with a word when it cannot be done.
    :param corked: what the handshake's last step writes leaves together: a server's two tickets and, where it is there
        already, the first answer are three records and one segment.
    :ivar on_close: ``(function, argument)`` to call with this stream and the argument before the socket is closed.
    """

    __slots__ = (
        "_corked",
        "_failed",
        "_read_wants_write",
        "_ready",
        "_ssl",
        "client_fields",
        "on_close",
        "shaking",
        "tls",
        "tls_session",
    )

    def __init__(
        self,
        sock: socket.socket,
        reactor: Any,
        connection: SSL.Connection,
        *,
        ready: Callable[[TlsStream], None],
        failed: Callable[[TlsStream, str], None],
        peer: Any = None,
        corked: bool = False,
    ) -> None:
        Stream.__init__(self, sock, reactor, None, peer)
        self.tls = connection
        self._ssl = connection._ssl
        self._ready = ready
        self._failed = failed
        self._corked = corked
        self._read_wants_write = False
        self.client_fields = b""
        self.tls_session = None
        self.on_close: tuple[Callable[..., None], Any] | None = None
        self.shaking = True

    # Handshake

    def begin(self) -> None:
        """Shake hands; what is there already is read at once."""
        self._reading = True
        self.reactor.addReader(self)
        try:
            self._shake()
        except Exception:
            self.connectionLost(Failure())  # no descriptor of ours may stay with the reactor
            raise

    def _shake(self) -> None:
        result = _lib.SSL_do_handshake(self._ssl)
        if result == 1:
            self._shaken()
            return
        error = _get_error(self._ssl, result)
        if error == _WANT_READ:
            self._stop_writing()
        elif error == _WANT_WRITE:
            self._want_write()
        else:
            self.fail(reason_of())

    def _shake_corked(self) -> None:
        sock = self._sock
        sock.setsockopt(_TCP, _CORK, 1)
        try:
            self._shake()
        finally:
            if not self.disconnected:
                sock.setsockopt(_TCP, _CORK, 0)

    def _want_write(self) -> None:
        if not self._writing:
            self._writing = True
            self.reactor.addWriter(self)

    def _shaken(self) -> None:
        self.shaking = False
        self._stop_writing()
        self._ready(self)
        if self.connected and self._reading:
            # The first request usually came together with the end of the handshake.
            self.doRead()

    def fail(self, why: str) -> None:
        """End it before it began; the peer has had OpenSSL's alert."""
        if self.disconnected:
            return
        self._failed(self, why)
        self._end(Failure(HandshakeFailed(why)))

    # IReadDescriptor, IWriteDescriptor

    def doRead(self) -> None:
        if self.shaking:
            if self._corked:
                self._shake_corked()
            else:
                self._shake()
            return
        ssl = self._ssl
        got = _read(ssl, _buffer, _RECORD)
        if got <= 0:
            self._read_failed(_get_error(ssl, got))
            return
        if got < 8192:
            self.protocol.dataReceived(_view[:got])
            return
        # Bulk: several records are one reading for the protocol.
        pieces = [_view[:got]]
        error = _WANT_READ
        while got > 8192 and len(pieces) < _RECORDS_PER_TURN:
            got = _read(ssl, _buffer, _RECORD)
            if got <= 0:
                error = _get_error(ssl, got)  # before anything else is asked of this connection
                break
            pieces.append(_view[:got])
        why = reason_of() if error not in (_WANT_READ, _WANT_WRITE, _ZERO_RETURN) else ""
        self.protocol.dataReceived(b"".join(pieces))
        if error != _WANT_READ and not self.disconnected:
            self._read_failed(error, why)

    def _read_failed(self, error: int, why: str = "") -> None:
        if error == _WANT_READ:
            return
        if error == _WANT_WRITE:
            self._read_wants_write = True
            self._want_write()
        elif error == _ZERO_RETURN:
            self._input_ended()
        else:
            why = why or reason_of()
            # Without close_notify the end may be an attacker's (RFC 8446 §6.1): what delimits itself is not hurt.
            self._end(DONE if why in ("closed", "unexpected_eof_while_reading") else Failure(ConnectionLost(why)))

    def write(self, data: bytes) -> None:
        if self._unsent or self.disconnected or self._write_closed or not data or self.shaking:
            self._later(data)
            return
        size = len(data)
        if size <= 16384:
            sent = _write(self._ssl, data, size)
            if sent == size:
                return
            if sent <= 0:
                sent = self._write_failed(sent)
        else:
            sent = self._write_bulk(data)
        if sent < size:
            self._later(memoryview(data)[sent:] if sent else data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def _write_bulk(self, data: Any) -> int:
        """Write record by record; how many octets of ``data`` are gone."""
        ssl = self._ssl
        start = _ffi.from_buffer(data)
        size = len(data)
        done = 0
        while done < size:
            sent = _write(ssl, start + done, min(size - done, _WRITE_SIZE))
            if sent <= 0:
                self._write_failed(sent)
                break
            done += sent
        return done

    def _write_failed(self, result: int) -> int:
        error = _get_error(self._ssl, result)
        if error not in (_WANT_READ, _WANT_WRITE):
            # It shows once more when the reactor tries: connectionLost is never called from within write.
            _lib.ERR_clear_error()
        return 0

    def doWrite(self) -> None:
        if self.shaking:
            self._shake()
            return
        if self._read_wants_write:
            self._read_wants_write = False
            self.doRead()
        unsent = self._unsent
        while unsent:
            data = unsent[0]
            sent = _write(self._ssl, _ffi.from_buffer(data), len(data))
            if sent <= 0:
                error = _get_error(self._ssl, sent)
                if error not in (_WANT_READ, _WANT_WRITE):
                    self._end(Failure(ConnectionLost(reason_of())))
                return
            self._unsent_octets -= sent
            if sent < len(data):
                unsent[0] = memoryview(data)[sent:]
            else:
                unsent.popleft()
        self._drained()

    # The end

    def connectionLost(self, reason: Failure) -> None:
        if self.shaking:
            self.fail("closed")
        else:
            self._end(reason)

    def _finish_closing(self) -> None:
        if not self.disconnected:
            # One way: the peer's own close_notify is not waited for (RFC 8446 §6.1).
            _lib.SSL_shutdown(self._ssl)
            _lib.ERR_clear_error()
        self._end(DONE)

    def _close_socket(self) -> None:
        if self.on_close is not None:
            told, argument = self.on_close
            self.on_close = None
            told(self, argument)
        Stream._close_socket(self)

    def _shut_write(self) -> None:
        _lib.SSL_shutdown(self._ssl)
        _lib.ERR_clear_error()
        Stream._shut_write(self)

    # What was negotiated

    @property
    def negotiatedProtocol(self) -> bytes | None:  # type: ignore[override]
        """The protocol chosen by ALPN (RFC 7301), if any was."""
        return self.tls.get_alpn_proto_negotiated() or None

    def getHandle(self) -> Any:
        """pyOpenSSL's connection; reading or writing the socket itself would break the stream."""
        return self.tls

    def getPeerCertificate(self) -> Any:
        """The peer's certificate, or ``None``."""
        return self.tls.get_peer_certificate()

    @property
    def resumed(self) -> bool:
        """The handshake took up an earlier session."""
        return bool(_lib.SSL_session_reused(self._ssl))
