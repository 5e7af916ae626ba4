"""Fields that speak of octets which are no longer the same (RFC 9110 §8.8, RFC 9530)."""

from __future__ import annotations

from lbarray.http.events import ResponseHead

__all__ = ["adjust"]

_GONE = frozenset([b"content-length", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"accept-ranges"])


def adjust(head: ResponseHead) -> None:
    """Take away lengths, digests and ranges; a strong ETag becomes a weak one: the meaning is the same."""
    fields = []
    for name, value in head.fields:
        lower = name.lower()
        if lower in _GONE:
            continue
        if lower == b"etag" and not value.startswith(b"W/"):
            fields.append((name, b"W/" + value))
        else:
            fields.append((name, value))
    head.fields[:] = fields
