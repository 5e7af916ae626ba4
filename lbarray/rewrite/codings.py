"""Content codings (RFC 9110 §8.4), streaming: what comes coded is read, changed and coded again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

__all__ = ["READABLE", "BrokenCoding", "Coder", "Decoder", "coder", "decoder"]

#: Codings that we read and write, as in Accept-Encoding.
READABLE = (b"gzip", b"br", b"zstd", b"deflate", b"x-gzip")

#: Octets of plain content that are at hand at a time, about: a small coded piece may stand for gigabytes.
_PIECE = 1 << 16
#: At worst 16 MiB come of it.
_ZSTD_SLICE = 512
#: What RFC 9659 lets a sender ask for.
_ZSTD_WINDOW = 1 << 23
_GZIP = zlib.MAX_WBITS + 16
_MEMBER = b"\x1f"


class BrokenCoding(Exception):
    """The content is not what its Content-Encoding says."""


class Decoder(Protocol):
    """Coded content in, plain content out, in pieces of bounded size."""

    @property
    def ended(self) -> bool:
        """The content is complete."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """:raises BrokenCoding: it cannot be read."""


class Coder(Protocol):
    """Plain content in, coded content out."""

    def code(self, data: bytes) -> bytes:
        """Some of the content, all that can be read by the other side at once when ``flush`` follows."""

    def flush(self) -> bytes:
        """What is needed for the other side to read everything so far."""

    def finish(self) -> bytes:
        """The end."""


class _ZlibDecoder:
    """gzip, of one member or several (RFC 1952 §2.2); deflate with its zlib wrapper or, as some servers
    send it, without: browsers read both (RFC 9110 §8.4.1.2)."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._stream = zlib.decompressobj(window)
        self._head = b""
        self._known = window == _GZIP

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        if not self._known:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            self._known = True
            wrapped = data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0  # RFC 1950 §2.2
            if not wrapped:
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            while data:
                if self._stream.eof:
                    if self._window != _GZIP or not data.startswith(_MEMBER):
                        return  # padding behind the end, which browsers pass over as well
                    self._stream = zlib.decompressobj(self._window)
                yield self._stream.decompress(data, _PIECE)
                data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        except zlib.error as error:
            raise BrokenCoding(str(error)) from None


class _BrotliDecoder:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def ended(self) -> bool:
        return bool(self._stream.is_finished())

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            if self._stream.is_finished():
                return
            # It may call itself finished while it still has output: only an empty answer says there is no more.
            while piece := self._stream.process(data, output_buffer_limit=_PIECE):
                yield piece
                data = b""
        except brotli.error as error:
            raise BrokenCoding(str(error)) from None


class _ZstdDecoder:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()

    @property
    def ended(self) -> bool:
        return self._stream.eof

    def decode(self, data: bytes) -> Iterator[bytes]:
        # The library has no limit on output, and four octets may stand for a block of 128 KiB.
        gathered: list[bytes] = []
        size = 0
        try:
            for at in range(0, len(data), _ZSTD_SLICE):
                left = data[at : at + _ZSTD_SLICE]
                while left:
                    if self._stream.eof:  # another frame follows (RFC 8878 §3)
                        self._stream = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
                    piece = self._stream.decompress(left)
                    left = self._stream.unused_data if self._stream.eof else b""
                    gathered.append(piece)
                    size += len(piece)
                if size >= _PIECE:
                    yield b"".join(gathered)
                    gathered, size = [], 0
        except zstandard.ZstdError as error:
            raise BrokenCoding(str(error)) from None
        if size:
            yield b"".join(gathered)


class _ZlibCoder:
    def __init__(self, window: int) -> None:
        self._stream = zlib.compressobj(4, zlib.DEFLATED, window)

    def code(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._stream.flush(zlib.Z_FINISH)


class _BrotliCoder:
    def __init__(self) -> None:
        self._stream = brotli.Compressor(quality=4)

    def code(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data))

    def flush(self) -> bytes:
        return bytes(self._stream.flush())

    def finish(self) -> bytes:
        return bytes(self._stream.finish())


class _ZstdCoder:
    def __init__(self) -> None:
        self._stream = zstandard.ZstdCompressor(level=3).compressobj()

    def code(self, data: bytes) -> bytes:
        return self._stream.compress(data)

    def flush(self) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_FINISH)


def decoder(coding: bytes) -> Decoder | None:
    """A reader of this coding, ``None`` if we have none."""
    if coding in (b"gzip", b"x-gzip"):
        return _ZlibDecoder(_GZIP)
    if coding == b"deflate":
        return _ZlibDecoder(zlib.MAX_WBITS)
    if coding == b"br":
        return _BrotliDecoder()
    return _ZstdDecoder() if coding == b"zstd" else None


def coder(coding: bytes) -> Coder:
    """A writer of a coding that :func:`decoder` reads."""
    if coding in (b"gzip", b"x-gzip"):
        return _ZlibCoder(_GZIP)
    if coding == b"deflate":
        return _ZlibCoder(zlib.MAX_WBITS)
    return _BrotliCoder() if coding == b"br" else _ZstdCoder()
