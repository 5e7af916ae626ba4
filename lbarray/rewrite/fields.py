"""URLs in the fields of a response: ``Link`` (RFC 8288) and ``Location`` (RFC 9110 §10.2.2)."""

from __future__ import annotations

import re

from lbarray.http.events import ResponseHead
from lbarray.rewrite.places import LINK_TYPES, PRELOADS_LEFT
from lbarray.rewrite.rules import CdnRules, Page

__all__ = ["rewrite_links", "rewrite_location"]

_LINK = re.compile(rb"[\t ,]*+<([^>]*+)>((?:[^,\"]++|\"(?:[^\"\\]++|\\.)*+\")*+)")
_PARAMETER = re.compile(rb";[\t ]*+([A-Za-z*-]++)[\t ]*+(?:=[\t ]*+(\"(?:[^\"\\]++|\\.)*+\"|[^\t ;,\"]*+))?")


def rewrite_links(head: ResponseHead, rules: CdnRules, page: Page) -> int:
    """Send preloads and style sheets named in ``Link`` fields to the CDN; how many."""
    count = 0
    for place, (name, value) in enumerate(head.fields):
        if len(name) != 4 or name.lower() != b"link":
            continue
        changed: list[bytes] = []
        done = 0
        for link in _LINK.finditer(value):
            if _loads(link[2]) and (moved := rules.moved(link[1].strip(), page)):
                changed += [value[done : link.start(1)], moved]
                done = link.end(1)
                count += 1
        if changed:
            head.fields[place] = (name, b"".join(changed) + value[done:])
    return count


def _loads(parameters: bytes) -> bool:
    values: dict[bytes, bytes] = {}
    for parameter in _PARAMETER.finditer(parameters):
        values.setdefault(parameter[1].lower(), (parameter[2] or b"").strip(b'"').lower())
    if LINK_TYPES.isdisjoint(values.get(b"rel", b"").split()) or b"anchor" in values:
        return False
    return values.get(b"as", b"") not in PRELOADS_LEFT and (b"integrity" not in values or b"crossorigin" in values)


def rewrite_location(head: ResponseHead, rules: CdnRules, page: Page) -> int:
    """Send a redirect to the CDN when it serves what the redirect leads to."""
    if head.status not in (301, 302, 303, 307, 308):
        return 0
    for place, (name, value) in enumerate(head.fields):
        if len(name) == 8 and name.lower() == b"location" and (moved := rules.moved(value.strip(), page)):
            head.fields[place] = (name, moved)
            return 1
    return 0
