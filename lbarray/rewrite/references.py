"""Character references in attributes (WHATWG HTML §13.2.5.72-80): there ``&copy=1`` is no copyright sign."""

from __future__ import annotations

import html
import re
from html.entities import html5

__all__ = ["escaped", "reference_spans", "unescaped"]

_REFERENCE = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,12};?|#[0-9]{1,12};?|[A-Za-z][A-Za-z0-9]{0,40}(?:;|=)?)")


def _resolved(match: re.Match[str]) -> str:
    written = match.group()
    if written[1] == "#":
        return html.unescape(written)
    name = written[1:]
    if name.endswith(";"):
        if name in html5:
            return html5[name]
        name = name[:-1]
    elif name.endswith("="):
        return written
    # Without its semicolon a name counts only where nothing follows that could belong to a query.
    following = match.string[match.end() : match.end() + 1]
    if written[-1] != ";" and name in html5 and not following.isalnum():
        return html5[name]
    return written


def unescaped(value: bytes) -> bytes:
    """What the attribute means, in the page's charset where that was written plainly, in UTF-8 where it was referred
    to."""
    if b"&" not in value:
        return value
    text = _REFERENCE.sub(_resolved, value.decode("latin-1"))
    return b"".join(each.encode("latin-1") if each < "\u0100" else each.encode("utf-8", "replace") for each in text)


def reference_spans(value: bytes) -> tuple[bytes, list[int]]:
    """What the attribute means, and for each octet of that, and for its end, where in ``value`` it comes from."""
    text = value.decode("latin-1")
    plain = bytearray()
    places: list[int] = []
    at = 0
    for match in _REFERENCE.finditer(text):
        meant = _resolved(match)
        plain += value[at : match.start()]
        places += range(at, match.start())
        octets = value[match.start() : match.end()] if meant == match.group() else meant.encode("utf-8", "replace")
        places += range(match.start(), match.end()) if meant == match.group() else [match.start()] * len(octets)
        plain += octets
        at = match.end()
    plain += value[at:]
    places += range(at, len(value) + 1)
    return bytes(plain), places


def escaped(value: bytes) -> bytes:
    """It may stand in any attribute, between quotation marks of either kind."""
    return value.replace(b"&", b"&amp;").replace(b'"', b"&quot;").replace(b"'", b"&#39;")
