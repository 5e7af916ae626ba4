"""Header blocks: ours in C, and the library's, say and understand the same (RFC 7541)."""

from __future__ import annotations

import hpack
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.events import Fields
from lbarray.http.h2_compression import COMPILED, BlockDecoder, _first_invalid, decoder, encoder, first_invalid

#: Both ways where there are two.
WAYS = (False, True) if COMPILED else (False,)

NAMES = st.sampled_from(
    [b"a", b"X-Foo", b"set-cookie", b":path", b":status", b"content-length", b"etag", b"vary", b"x" * 200, b""]
)
VALUES = st.one_of(st.sampled_from([b"", b"200", b"/", b"GET"]), st.binary(max_size=12), st.binary(max_size=1500))
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)


def lower(fields: Fields) -> Fields:
    return [(name.lower(), value.strip(b" \t")) for name, value in fields]


def outcome(way: BlockDecoder, block: bytes) -> Fields | str:
    try:
        return way.decode(block)
    except ValueError:
        return "none"
    except OverflowError:
        return "endless"


class BlockTests(SynchronousTestCase):
    """Blocks of one connection, in order."""

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.one_of(FIELDS, st.sampled_from([0, 100, 2000, 4096, 65536])), max_size=12))
    def test_there_and_back(self, blocks: list[Fields | int]) -> None:
        """What is encoded is understood, by ourselves and by others, whatever table the peer wants."""
        for compiled in WAYS:
            ours = encoder(compiled=compiled)
            readers = [decoder(1 << 20, compiled=way) for way in WAYS]
            for fields in blocks:
                if isinstance(fields, int):
                    ours.resize(fields)
                    continue
                block = ours.encode(fields)
                for reader in readers:
                    self.assertEqual(reader.decode(block), lower(fields))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, None, 0, 100, 4096])), max_size=8))
    def test_others(self, blocks: list[tuple[Fields, bool, int | None]]) -> None:
        """What the library encodes is understood, with Huffman's code and without, the table growing and shrinking."""
        other = hpack.Encoder()
        readers = [decoder(1 << 20, compiled=way) for way in WAYS]
        for fields, huffman, size in blocks:
            if size is not None:
                other.header_table_size = size
            block = other.encode(fields, huffman=huffman)
            for reader in readers:
                self.assertEqual(reader.decode(block), fields)

    @settings(deadline=None, max_examples=500)
    @example(b"\xff\xff\xff\xff\xff\xff\x0f")
    @example(b"\x82\x3f\xe1\x1f")
    @example(b"\x00\x81\xff\x00")
    @example(b"\x40\x84\xff\xff\xff\xff\x00")
    @given(st.binary(max_size=40))
    def test_noise(self, octets: bytes) -> None:
        """Of any octets, all ways make the same or nothing."""
        outcomes = [outcome(decoder(300, compiled=way), octets) for way in WAYS]
        self.assertEqual(len({str(each) for each in outcomes}), 1, outcomes)

    def test_example(self) -> None:
        """RFC 7541 appendix C.4: three requests, with Huffman's code and the table of one connection."""
        blocks = [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ]
        base = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
        third = [
            (b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html"),
            (b":authority", b"www.example.com"), (b"custom-key", b"custom-value"),
        ]  # fmt: skip
        for compiled in WAYS:
            reader = decoder(1 << 16, compiled=compiled)
            read = [reader.decode(bytes.fromhex(block)) for block in blocks]
            self.assertEqual(read, [base, [*base, (b"cache-control", b"no-cache")], third])

    def test_bomb(self) -> None:
        """A few octets that would become many (an entry of the table again and again) have an end."""
        for compiled in WAYS:
            writer, reader = encoder(compiled=compiled), decoder(5000, compiled=compiled)
            self.assertEqual(len(reader.decode(writer.encode([(b"x", b"y" * 900)]))), 1)
            self.assertRaises(OverflowError, reader.decode, b"\xbe" * 900)

    def test_secrets(self) -> None:
        """Cookies are in no table, so that nobody can find out about them by trying (RFC 7541 §7.1)."""
        for compiled in WAYS:
            writer = encoder(compiled=compiled)
            sizes = {len(writer.encode([(b"set-cookie", b"id=0123456789abcdef")])) for _ in range(3)}
            self.assertEqual(len(sizes), 1)
            self.assertGreater(sizes.pop(), 10)

    def test_again(self) -> None:
        """What was said before is an octet."""
        for compiled in WAYS:
            writer = encoder(compiled=compiled)
            fields = [(b":status", b"200"), (b"server", b"nginx"), (b"x-y", b"z")]
            writer.encode(fields)
            self.assertEqual(len(writer.encode(fields)), 3)

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=4))
    def test_invalid(self, fields: Fields) -> None:
        """The check of fields is the same both ways."""
        self.assertEqual(first_invalid(fields), _first_invalid(fields))
