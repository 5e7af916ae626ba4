"""A tree builder's opinion on what a rewriting changed."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin

import turbohtml

__all__ = ["CDN", "PAGE", "PLACES", "moved_alike", "tree_difference"]

CDN = "https://cdn.example"
#: Where the pages are from.
PAGE = "https://site.example/folder/page.html"
#: Where a URL may change, by element.
PLACES = {
    "img": {"src", "srcset"},
    "image": {"href", "xlink:href"},
    "feimage": {"href", "xlink:href"},
    "script": {"src", "href", "xlink:href"},
    "input": {"src"},
    "link": {"href", "imagesrcset"},
    "source": {"src", "srcset"},
    "video": {"src", "poster"},
    "audio": {"src"},
    "track": {"src"},
}
_EVERYWHERE = {"style", "background"}


def _nodes(page: bytes) -> list[Any]:
    """Every node in order, with what says where it ends."""
    found: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, turbohtml.Element):
            found.append((str(node.namespace), node.tag, dict(node.attrs)))
        elif not isinstance(node, turbohtml.Document | turbohtml.DocumentFragment):
            found.append((type(node).__name__, str(getattr(node, "data", None) or getattr(node, "text", None))))
        for child in node.children:
            walk(child)
        found.append("/")

    walk(turbohtml.parse(page.decode("latin-1")))
    return found


def moved_alike(name: str, value: str, changed: str) -> bool:
    """It is the same reference, but to the CDN."""
    if changed.replace(CDN, "") == value:
        return True
    if name in ("srcset", "imagesrcset", "style"):
        return changed.count(CDN) > 0 and len(changed.split()) == len(value.split())
    return urljoin(PAGE, value.strip()) == changed.strip().replace(CDN, "https://site.example")


def tree_difference(before: bytes, after: bytes) -> str | None:
    """What differs beyond the CDN's name in the intended attributes and in style elements; ``None``: nothing does."""
    if before == after:
        return None
    old, new = _nodes(before), _nodes(after)
    if len(old) != len(new):
        return f"{len(old)} nodes became {len(new)}"
    in_style = False
    for one, two in zip(old, new, strict=True):
        if one == two:
            in_style = len(one) == 3 and one[1] == "style"
            continue
        if len(one) == 2 and in_style and two[0] == one[0] and moved_alike("style", one[1], two[1]):
            continue
        if len(one) != 3 or len(two) != 3 or one[:2] != two[:2]:
            return f"{one} became {two}"
        allowed = PLACES.get(one[1].lower(), set()) | _EVERYWHERE
        for name in one[2].keys() | two[2].keys():
            value, changed = one[2].get(name), two[2].get(name)
            if value != changed and (name not in allowed or not moved_alike(name, value or "", changed or "")):
                return f"{name} of {one} became {changed}"
    return None
