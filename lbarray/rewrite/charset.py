"""Charsets in which tags cannot be found by octets (WHATWG Encoding)."""

from __future__ import annotations

__all__ = ["WIDE_MARKS", "ascii_inside", "ascii_inside_by_meta", "charset_of"]

#: Byte order marks of UTF-16 and UTF-32: they overrule everything else.
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")

#: Between their escapes octets below 0x80 are halves of other characters.
_ESCAPING = (b"iso-2022", b"csiso2022", b"hz-gb")
_WIDE = (b"utf-16", b"utf16", b"utf-32", b"utf-7", b"ucs-", b"ucs2", b"unicode", b"csunicode", b"iso-10646-ucs")


def ascii_inside(content_type: bytes) -> bool:
    """Octets below 0x80 are ASCII in this media type's charset; also when it names none."""
    parameters = content_type.lower().partition(b";")[2]
    # Names like "unicode-1-1-utf-8" mean UTF-8.
    return b"utf-8" in parameters or not any(name in parameters for name in (*_ESCAPING, *_WIDE))


def charset_of(content_type: bytes) -> str | None:
    """What a media type's ``charset`` parameter says (RFC 9110 §8.3.2)."""
    for parameter in content_type.split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip().lower() == b"charset":
            return value.strip().strip(b"\"'").decode("ascii", "replace") or None
    return None


def ascii_inside_by_meta(label: bytes) -> bool:
    """The same of what a ``meta`` element says: there the wide ones mean UTF-8, for the tag was read as ASCII
    (WHATWG HTML §13.2.3.2)."""
    return not any(name in label.lower() for name in _ESCAPING)
