"""What changes in one tag, or in the value of one attribute."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lbarray.rewrite.css import style_changes
from lbarray.rewrite.places import LINK_TYPES, PRELOADS_LEFT, Kind
from lbarray.rewrite.references import escaped, reference_spans, unescaped
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.srcset import candidate_urls
from lbarray.rewrite.tokens import PAIR

__all__ = ["CROSSORIGIN", "Change", "attributes_of", "changes_of", "changes_of_tag", "meta_change"]

#: (first, behind the last, written instead): octets that are replaced.
Change = tuple[int, int, bytes]

#: What a URL may have around it (WHATWG HTML §2.4.1).
_SPACE = b"\t\n\f\r "
#: What a tag with ``integrity`` gets, right behind the element's name.
CROSSORIGIN = b' crossorigin="anonymous"'
_CONDITIONS = (b"rel", b"as", b"integrity", b"crossorigin")
_REFRESH = re.compile(rb"[\t\n\f\r ]*+[0-9.]*+[\t\n\f\r ;,]*+(?:[uU][rR][lL][\t\n\f\r ]*+=[\t\n\f\r ]*+)?+[\"']?")
#: ``property`` or ``name`` of a ``meta`` whose ``content`` is the URL of an image or film (ogp.me, X cards).
_PICTURES = frozenset(
    b"og:image og:image:url og:image:secure_url og:video og:video:url og:video:secure_url og:audio twitter:image "
    b"twitter:image:src msapplication-tileimage".split()
)


def attributes_of(tag: re.Match[bytes]) -> dict[bytes, bytes]:
    """Names in lower case, values as they are meant. Of two of one name the second does not count (§13.2.5.33)."""
    found: dict[bytes, bytes] = {}
    for pair in PAIR.finditer(tag.string, tag.start(3), tag.end(3)):
        value = pair[2] or b""
        if value[:1] in (b'"', b"'"):
            value = value[1:-1]
        found.setdefault(pair[1].lower(), unescaped(value))
    return found


def changes_of(quoted: bytes, rules: CdnRules, page: Page, kind: Kind) -> list[Change]:
    """Within one attribute's value, as it is written, with its quotation marks if it has any."""
    first, last = (1, len(quoted) - 1) if quoted[:1] in (b'"', b"'") else (0, len(quoted))
    if kind is Kind.URL:
        value = quoted[first:last]
        written = value.strip(_SPACE)
        if not written:
            return []
        first += value.find(written) if len(written) < len(value) else 0
        change = _moved(written, rules, page)
        return [(first + change[0], first + change[1], change[2])] if change else []
    if kind is Kind.SRCSET:
        value = quoted[first:last]
        return [
            (first + begin + change[0], first + begin + change[1], change[2])
            for begin, end in candidate_urls(value)
            if (change := _moved(value[begin:end], rules, page))
        ]
    return _styled(quoted[first:last], first, rules, page)


def _moved(written: bytes, rules: CdnRules, page: Page) -> Change | None:
    """A URL as it is written in an attribute; as little of it is replaced as will do."""
    plain = written if b"&" not in written else unescaped(written)
    moved = rules.moved(plain, page)
    if moved is None:
        return None
    kept = kept_from(plain, moved)
    if kept < len(plain) and b"&" not in written[:kept]:
        return 0, kept, moved[: len(moved) - (len(plain) - kept)]
    return (0, len(written), escaped(moved)) if moved.isascii() else None


def kept_from(plain: bytes, moved: bytes) -> int:
    """From which octet of ``plain`` on ``moved`` ends like it; its length when it does not."""
    if moved.endswith(plain):
        return 0
    place = plain.find(b"/", plain.find(b"//") + 2)
    return place if place > 0 and moved.endswith(plain[place:]) else len(plain)


def _styled(value: bytes, first: int, rules: CdnRules, page: Page) -> list[Change]:
    if b"&" not in value:
        return [(first + begin, first + end, escaped(text)) for begin, end, text in style_changes(value, rules, page)]
    plain, places = reference_spans(value)
    return [
        (first + places[begin], first + places[end], escaped(text))
        for begin, end, text in style_changes(plain, rules, page)
    ]


def changes_of_tag(
    tag: re.Match[bytes], name: bytes, kinds: Mapping[bytes, Kind], rules: CdnRules, page: Page
) -> tuple[list[Change], int]:
    """Within a whole start tag, by place; and 1 if it stays as it is for want of ``crossorigin``.

    :param tag: of :data:`lbarray.rewrite.tokens.TAG`.
    :param kinds: where in this element URLs may stand.
    """
    data = tag.string
    found: dict[bytes, tuple[int, int]] = {}
    for pair in PAIR.finditer(data, tag.start(3), tag.end(3)):
        attribute = pair[1].lower()
        if (attribute in kinds or attribute in _CONDITIONS) and attribute not in found:
            found[attribute] = pair.span(2)
    if name == b"link" and not _loads(data, found):
        kinds = {attribute: kind for attribute, kind in kinds.items() if kind is Kind.STYLE}
    changes: list[Change] = []
    for attribute, (first, last) in found.items():
        kind = kinds.get(attribute)
        if kind is not None and first >= 0:
            changes += [
                (first + begin, first + end, text)
                for begin, end, text in changes_of(data[first:last], rules, page, kind)
            ]
    if not changes:
        return [], 0
    first, last = found.get(b"integrity", (-1, -1))
    if name in (b"link", b"script") and data[first:last].strip(b"\"'") and b"crossorigin" not in found:
        # From another origin browsers check, and use, only what was asked for with CORS (W3C SRI §3.3.2).
        if not rules.add_crossorigin:
            return [], 1
        changes.append((tag.end(2), tag.end(2), CROSSORIGIN))
    changes.sort(key=lambda change: change[0])
    return changes, 0


def _loads(data: bytes, found: Mapping[bytes, tuple[int, int]]) -> bool:
    """This ``link`` is of a kind that is loaded (WHATWG HTML §4.6.7)."""
    first, last = found.get(b"rel", (0, 0))
    if LINK_TYPES.isdisjoint(data[max(first, 0) : max(last, 0)].strip(b"\"'").lower().split()):
        return False
    first, last = found.get(b"as", (0, 0))
    return data[max(first, 0) : max(last, 0)].strip(b"\"'").strip().lower() not in PRELOADS_LEFT


def meta_change(tag: re.Match[bytes], values: Mapping[bytes, bytes], rules: CdnRules, page: Page) -> Change | None:
    """Of a ``meta`` that names a picture, or a page to go to."""
    content = values.get(b"content", b"")
    if values.get(b"http-equiv", b"").strip().lower() == b"refresh":
        found = _REFRESH.match(content)
        begin = found.end() if found else 0
    elif (values.get(b"property") or values.get(b"name") or b"").strip().lower() in _PICTURES:
        begin = 0
    else:
        return None
    for pair in PAIR.finditer(tag.string, tag.start(3), tag.end(3)):
        if pair[1].lower() == b"content" and pair[2] is not None:
            break
    else:
        return None
    quoted = pair[2]
    if b"&" in quoted[: begin + 1]:
        return None
    first = begin + (quoted[:1] in (b'"', b"'"))
    last = len(quoted) - (quoted[:1] in (b'"', b"'"))
    written = quoted[first:last].strip(_SPACE)
    first += quoted[first:last].find(written)
    written = written.rstrip(b"\"'")
    change = _moved(written, rules, page) if written else None
    if change is None:
        return None
    text = rules.absolute(change[2]) if change[0] == 0 else change[2]
    return pair.start(2) + first + change[0], pair.start(2) + first + change[1], text
