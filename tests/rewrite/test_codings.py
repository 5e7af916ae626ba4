"""Content codings: what servers really send, and how little of it is held."""

from __future__ import annotations

import zlib

import brotli
import zstandard
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.codings import READABLE, BrokenCoding, coder, decoder

PAGE = b"<p>" + b"page " * 4000


def gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    return stream.compress(data) + stream.flush()


def read(coding: bytes, data: bytes, size: int = 1 << 30) -> bytes:
    reader = decoder(coding)
    assert reader is not None
    return b"".join(b"".join(reader.decode(data[at : at + size])) for at in range(0, len(data), size))


class DecoderTests(SynchronousTestCase):
    """Coded content in, plain content out."""

    def test_own_output(self) -> None:
        """What we write, we read, and know as complete at its end only."""
        for name in READABLE:
            writer, reader = coder(name), decoder(name)
            assert reader is not None
            coded = writer.code(PAGE) + writer.flush()
            self.assertEqual(b"".join(reader.decode(coded)), PAGE, name)
            self.assertFalse(reader.ended, name)
            self.assertEqual(b"".join(reader.decode(writer.finish())), b"", name)
            self.assertTrue(reader.ended, name)

    def test_several_members(self) -> None:
        """A gzip file of several members is one content (RFC 1952 §2.2)."""
        coded = gzip(b"one ") + gzip(b"two")
        for size in (1, 5, 1000):
            self.assertEqual(read(b"gzip", coded, size), b"one two")

    def test_several_frames(self) -> None:
        """So it is with zstd (RFC 8878 §3)."""
        coded = zstandard.compress(b"one ") + zstandard.compress(b"two")
        for size in (1, 5, 1000):
            self.assertEqual(read(b"zstd", coded, size), b"one two")

    def test_padding(self) -> None:
        """Zeros behind the end are passed over."""
        self.assertEqual(read(b"gzip", gzip(PAGE) + bytes(100)), PAGE)

    def test_raw_deflate(self) -> None:
        """Deflate without its zlib wrapper, as some servers send it."""
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        coded = stream.compress(PAGE) + stream.flush()
        for size in (1, 1000):
            self.assertEqual(read(b"deflate", coded, size), PAGE)

    def test_unknown(self) -> None:
        """Codings that we lack have no reader."""
        self.assertIsNone(decoder(b"compress"))

    def test_garbage(self) -> None:
        """What is not coded so is told apart."""
        for name in (b"gzip", b"br", b"zstd"):
            self.assertRaises(BrokenCoding, read, name, b"<!DOCTYPE html><p>not coded")

    def test_expansion_is_bounded(self) -> None:
        """Content that expands ten thousandfold is never at hand as a whole."""
        plain = bytes(64 << 20)
        for name, coded in (
            (b"gzip", gzip(plain)),
            (b"br", brotli.compress(plain, quality=5)),
            (b"zstd", zstandard.compress(plain)),
        ):
            reader = decoder(name)
            assert reader is not None
            sizes = [len(piece) for piece in reader.decode(coded)]
            self.assertEqual(sum(sizes), len(plain), name)
            self.assertLess(max(sizes), 20 << 20 if name == b"zstd" else 2 << 20, name)
