"""Fields that speak of octets which are no longer the same (RFC 9110 §8.8, RFC 9530).

An entity tag of a changed page is derived from the back end's and from the rules: weak, because two nodes may code the
page differently, and another one as soon as the rules, or the CDN's living hosts, are others. What comes back in
``If-None-Match`` is turned into the back end's own tag only while it still stands for the same page.
"""

from __future__ import annotations

import re

from lbarray.http.events import RequestHead, ResponseHead

__all__ = ["adjust", "derived", "restore"]

_GONE = frozenset([b"content-length", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"accept-ranges"])
_TAG = re.compile(rb'[\t ,]*+((?:W/)?"([^"]*+)"|\*)')
_MARK = b";lb="


def derived(tag: bytes, digest: bytes) -> bytes:
    """The tag of what becomes of content with this tag, by rules with this digest."""
    return b'W/"' + tag.removeprefix(b"W/").strip(b'"') + _MARK + digest + b'"'


def adjust(head: ResponseHead, digest: bytes) -> None:
    """Take away lengths, digests and ranges; derive the entity tag. ``Last-Modified`` stays."""
    fields = []
    for name, value in head.fields:
        lower = name.lower()
        if lower in _GONE:
            continue
        fields.append((name, derived(value, digest) if lower == b"etag" else value))
    head.fields[:] = fields


def restore(request: RequestHead, digest: bytes) -> bool:
    """Make back end's tags of ours in ``If-None-Match``; true when some were ours and still hold.

    Tags of other rules are dropped, and when nothing is left ``If-Modified-Since`` too: the client is to have the page
    as it is now.
    """
    values = request.get_all(b"if-none-match")
    if not any(_MARK in value for value in values):
        return False
    kept: list[bytes] = []
    ours = False
    for found in _TAG.finditer(b",".join(values)):
        opaque, mark, written = (found[2] or b"").rpartition(_MARK)
        if not mark:
            kept.append(found[1])
        elif written == digest:
            # Whether the back end's own was weak is not known any more; the comparison is the weak one (§13.1.2).
            kept += [b'"' + opaque + b'"', b'W/"' + opaque + b'"']
            ours = True
    if kept:
        request.replace(b"If-None-Match", b", ".join(kept))
    else:
        request.remove(b"if-none-match")
        request.remove(b"if-modified-since")
    return ours
