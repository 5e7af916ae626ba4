"""Import maps of scripts and manifests of applications: the URLs in them, and not one other octet (RFC 8259)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lbarray.rewrite.rules import CdnRules, Page

__all__ = ["LONGEST_JSON", "import_map_changes", "manifest_changes"]

#: Octets of a map or manifest that are held until it is complete; a longer one stays as it is.
LONGEST_JSON = 65536

_STRING = re.compile(rb'"((?:[^"\\]++|\\[\s\S])*+)"')
_SOURCE = re.compile(rb'"src"[\t\n\r ]*+:[\t\n\r ]*+"((?:[^"\\]++|\\[\s\S])*+)"')
_URL_LIKE = (b"/", b"./", b"../", b"http:", b"https:", b"\\/")


def import_map_changes(text: bytes, rules: CdnRules, page: Page) -> Iterator[tuple[int, int, bytes]]:
    """In an import map: addresses, scopes and what is looked up by its address (WHATWG HTML §8.1.6.2). A module that
    comes from the CDN looks for others there, so keys move as well."""
    return _changes(text, _STRING, rules, page)


def manifest_changes(text: bytes, rules: CdnRules, page: Page) -> Iterator[tuple[int, int, bytes]]:
    """In a web application manifest: the ``src`` of icons and screenshots (W3C Manifest §1.13); others name pages."""
    return _changes(text, _SOURCE, rules, page)


def _changes(text: bytes, pattern: re.Pattern[bytes], rules: CdnRules, page: Page) -> Iterator[tuple[int, int, bytes]]:
    try:
        json.loads(text)
    except ValueError:
        return
    for found in pattern.finditer(text):
        written = found[1]
        if pattern is _STRING and not written.startswith(_URL_LIKE):
            continue
        url = written.replace(b"\\/", b"/")
        moved = rules.moved(url, page) if b"\\" not in url else None
        if moved is None or not moved.isascii():
            continue
        first, last = found.span(1)
        if moved.endswith(url):
            yield first, first, moved[: len(moved) - len(url)]
        else:
            yield first, last, moved
