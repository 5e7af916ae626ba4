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

_PIECE = 1 << 18


class BrokenCoding(Exception):
    """The content is not what its Content-Encoding says."""


class Decoder(Protocol):
    """Coded content in, plain content out, in pieces of bounded size."""

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
    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            while data and not self._stream.eof:
                yield self._stream.decompress(data, _PIECE)
                data = self._stream.unconsumed_tail
        except zlib.error as error:
            raise BrokenCoding(str(error)) from None


class _BrotliDecoder:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            yield self._stream.process(data)
        except brotli.error as error:
            raise BrokenCoding(str(error)) from None


class _ZstdDecoder:
    def __init__(self) -> None:
        # 8 MiB of window are what RFC 9659 lets a sender ask for.
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << 23).decompressobj()

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            yield self._stream.decompress(data)
        except zstandard.ZstdError as error:
            raise BrokenCoding(str(error)) from None


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
        return _ZlibDecoder(31)
    if coding == b"deflate":
        return _ZlibDecoder(15)
    if coding == b"br":
        return _BrotliDecoder()
    return _ZstdDecoder() if coding == b"zstd" else None


def coder(coding: bytes) -> Coder:
    """A writer of a coding that :func:`decoder` reads."""
    if coding in (b"gzip", b"x-gzip"):
        return _ZlibCoder(31)
    if coding == b"deflate":
        return _ZlibCoder(15)
    return _BrotliCoder() if coding == b"br" else _ZstdCoder()
