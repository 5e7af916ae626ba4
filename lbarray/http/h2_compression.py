"""Header blocks of HTTP/2: HPACK (RFC 7541), and what may stand in them (RFC 9113 §8.2.1).

In C (``_hpack.c``) where a compiler was there, otherwise by the library ``hpack``, at some twenty times the cost.
"""

from __future__ import annotations

from typing import Final, Protocol

import hpack
from hpack.exceptions import HPACKError, OversizedHeaderListError

from lbarray.extensions import not_used
from lbarray.http.events import Fields

try:
    from lbarray.http import _hpack

    COMPILED = True
except ImportError as error:
    not_used("lbarray.http._hpack", error)
    COMPILED = False

__all__ = ["COMPILED", "TABLE", "BlockDecoder", "BlockEncoder", "decoder", "encoder", "first_invalid"]

#: Octets of a dynamic table: what a peer has when nobody says anything (RFC 9113 §6.5.2).
TABLE: Final = 4096

_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"  # RFC 9110 §5.6.2, in lower case (RFC 9113 §8.2.1)
_SPACE = b" \t"
_SENSITIVE = frozenset([b"set-cookie", b"authorization"])


class BlockDecoder(Protocol):
    """The blocks of one connection, in order."""

    def decode(self, block: bytes, /) -> Fields:
        """The fields of a whole block.

        :raises ValueError: it is none; the connection is of no further use. :raises OverflowError: it has no end.
        """


class BlockEncoder(Protocol):
    """The blocks to one peer, in order."""

    def encode(self, fields: Fields, /) -> bytes:
        """The block of these fields, names in lower case and values without white space around them."""

    def resize(self, table: int, /) -> None:
        """The peer keeps a table of so many octets (at most :data:`TABLE` of them are used)."""


def decoder(most: int, *, compiled: bool = COMPILED) -> BlockDecoder:
    """:param most: octets of a list of fields, each with 32 more (RFC 9113 §6.5.2)."""
    return _hpack.Decoder(TABLE, most) if compiled else _LibraryDecoder(most)


def encoder(*, compiled: bool = COMPILED) -> BlockEncoder:
    """What writes blocks."""
    return _hpack.Encoder(TABLE) if compiled else _LibraryEncoder()


class _LibraryDecoder:
    def __init__(self, most: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=most)
        self._decoder.max_allowed_table_size = TABLE

    def decode(self, block: bytes) -> Fields:
        try:
            return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise OverflowError(str(error)) from None
        except (HPACKError, IndexError) as error:
            raise ValueError(str(error)) from None


class _LibraryEncoder:
    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def encode(self, fields: Fields) -> bytes:
        lower = [(name.lower(), value.strip(_SPACE)) for name, value in fields]
        return self._encoder.encode([(name, value, name in _SENSITIVE) for name, value in lower])

    def resize(self, table: int) -> None:
        size = min(table, TABLE)
        if size != self._encoder.header_table_size:  # the same twice, and it forgets to say so to the peer
            self._encoder.header_table_size = size


def _first_invalid(fields: Fields) -> int:
    """The place of the first field that no message may have; -1 for none.

    What HTTP/1.1 to the back end could not carry must not get that far. Pseudo-header fields are not looked at.
    """
    for place, (name, value) in enumerate(fields):
        if name[:1] == b":":
            continue
        if not name or name.translate(None, _TOKEN):
            return place
        if b"\r" in value or b"\n" in value or b"\0" in value:
            return place
        if value and (value[0] in _SPACE or value[-1] in _SPACE):
            return place
    return -1


first_invalid = _hpack.first_invalid if COMPILED else _first_invalid
