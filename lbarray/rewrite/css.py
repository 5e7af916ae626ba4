"""Style sheets while they stream: the URLs in them, and not one other octet (CSS Syntax 3 §4).

``url()`` with quotation marks or without, the strings of ``@import`` and ``image-set()``; not what stands in comments
and other strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from lbarray.rewrite.rules import CdnRules, Page

__all__ = ["LONGEST_TOKEN", "CssRewriter", "style_changes"]

#: Octets of a URL or string that are held while its end is awaited; a longer one is an image written into the sheet.
LONGEST_TOKEN = 8192
#: Octets of a name that may go on in the next piece.
_LONGEST_NAME = 24

_COMMENT: Final = rb"/\*(?:[^*]++|\*(?!/))*+\*/"
_STRING: Final = rb"(?:\"(?:[^\"\\\n\r\f]++|\\[\s\S])*+\"|'(?:[^'\\\n\r\f]++|\\[\s\S])*+')"
#: To the next thing that may be of interest, or is not complete.
_SKIP = re.compile(
    rb"(?:[^\"'/\\(@]++|" + _STRING + rb"|" + _COMMENT + rb"|/(?=[^*])|\\[\s\S]|(?<![lLtT])\(|@(?=[^iI]))*+"
)
_SKIP_IN_SET = re.compile(rb"(?:[^\"'/\\()]++|" + _COMMENT + rb"|/(?=[^*])|\\[\s\S])*+")
_STRING_TOKEN = re.compile(_STRING)
_BAD_STRING = re.compile(rb"\"(?:[^\"\\\n\r\f]++|\\[\s\S])*+[\n\r\f]|'(?:[^'\\\n\r\f]++|\\[\s\S])*+[\n\r\f]")
#: What stands between the parentheses of a ``url()``.
_URL = re.compile(
    rb"\([\t\n\f\r ]*+(?:\"((?:[^\"\\\n\r\f]++|\\[\s\S])*+)\"|'((?:[^'\\\n\r\f]++|\\[\s\S])*+)'"
    rb"|([^\"'()\\\x00-\x20\x7f]*+))"
    rb"[\t\n\f\r ]*+\)"
)
_BAD_URL = re.compile(rb"(?:[^)\\]++|\\[\s\S])*+\)")
_URL_NAME = re.compile(rb"(?<![a-zA-Z0-9_\\\x80-\xff-])(?:url|image-set|-webkit-image-set)\Z", re.IGNORECASE)
_IMPORT = re.compile(rb"@import(?![a-zA-Z0-9_\\\x80-\xff-])(?:[\t\n\f\r ]++|" + _COMMENT + rb")*+", re.IGNORECASE)
_WITHIN = {
    b'"': re.compile(rb"(?:[^\"\\\n\r\f]++|\\[\s\S])*+"),
    b"'": re.compile(rb"(?:[^'\\\n\r\f]++|\\[\s\S])*+"),
    b"(": re.compile(rb"(?:[^)\\]++|\\[\s\S])*+"),
}
_NAME_END = re.compile(rb"[a-zA-Z0-9_\\\x80-\xff@-]*\Z")


class CssRewriter:
    """One style sheet, or one attribute.

    :param page: where its relative URLs start.
    :param change: hears (first, behind the last, what is written there instead, begin and end of the whole token)
        within the octets given to ``scan``.
    """

    def __init__(self, rules: CdnRules, page: Page, change: Callable[[int, int, bytes, int, int], None]) -> None:
        self._rules = rules
        self._page = page
        self._change = change
        self._within = b""
        self._set_depth = 0

    def scan(self, data: bytes, at: int, end: int, *, last: bool) -> int:
        """Look at a part of ``data``; returns how far: what follows is to be given again, with more behind it.

        :param last: nothing follows.
        """
        while at < end:
            if self._within:
                at, stuck = self._through(data, at, end, last)
            else:
                skip = _SKIP_IN_SET if self._set_depth else _SKIP
                found = skip.match(data, at, end)
                assert found is not None  # it matches the empty string as well
                at = found.end()
                if at == end:
                    break
                at, stuck = self._token(data, at, end, last)
            if stuck:
                return end if last else at
        if last:
            return end
        name = _NAME_END.search(data, max(end - _LONGEST_NAME, 0), end)
        return name.start() if name and not self._within else end

    def _through(self, data: bytes, at: int, end: int, last: bool) -> tuple[int, bool]:
        """Through a comment, string or URL of any length."""
        if self._within == b"*":
            place = data.find(b"*/", at, end)
            if place < 0:
                return (end, True) if last or data[end - 1 : end] != b"*" else (end - 1, True)
            self._within = b""
            return place + 2, False
        found = _WITHIN[self._within].match(data, at, end)
        assert found is not None
        if found.end() == end or data[found.end() : found.end() + 1] == b"\\":
            return found.end(), True
        self._within = b""
        return found.end() + 1, False

    def _token(self, data: bytes, at: int, end: int, last: bool) -> tuple[int, bool]:
        mark = data[at : at + 1]
        if mark == b"(":
            return self._parenthesis(data, at, end, last)
        if mark == b")":
            self._set_depth -= 1
            return at + 1, False
        if mark == b"@":
            return self._at_rule(data, at, end, last)
        if mark == b"/":
            if end - at < 2:
                return (end, False) if last else (at, True)
            self._within = b"*"
            return at + 2, False
        if mark == b"\\":
            return (at + 1, False) if last else (at, True)
        string = _STRING_TOKEN.match(data, at, end)
        if string is not None:  # only those in image-set() come here
            if self._set_depth == 1:
                self._moved(data, at + 1, string.end() - 1, at, string.end())
            return string.end(), False
        bad = _BAD_STRING.match(data, at, end)
        if bad is not None:
            return bad.end(), False
        return self._unfinished(at, end, last, mark)

    def _unfinished(self, at: int, end: int, last: bool, mark: bytes) -> tuple[int, bool]:
        if not last and end - at <= LONGEST_TOKEN:
            return at, True
        self._within = mark
        return at + 1, False

    def _parenthesis(self, data: bytes, at: int, end: int, last: bool) -> tuple[int, bool]:
        name = _URL_NAME.search(data, max(at - _LONGEST_NAME, 0), at)
        if name is None or len(name[0]) > 3:
            if self._set_depth or name is not None:
                self._set_depth += 1
            return at + 1, False
        url = _URL.match(data, at, end)
        if url is not None:
            group = url.lastindex or 3
            self._moved(data, *url.span(group), at, url.end())
            return url.end(), False
        begun = data[at + 1 : at + 40].lstrip(b"\t\n\f\r ")
        if begun[:1] in (b'"', b"'"):
            if not last and end - at <= LONGEST_TOKEN and not begun[1:].startswith(b"data:"):
                return name.start(), True
            if self._set_depth:
                self._set_depth += 1
            return at + 1, False
        bad = _BAD_URL.match(data, at, end)
        if bad is not None:
            return bad.end(), False
        if not last and end - at <= LONGEST_TOKEN and not begun.startswith(b"data:"):
            return name.start(), True
        self._within = b"("
        return at + 1, False

    def _at_rule(self, data: bytes, at: int, end: int, last: bool) -> tuple[int, bool]:
        found = _IMPORT.match(data, at, end)
        if found is None:
            return (at, True) if not last and end - at < 8 else (at + 1, False)
        string = _STRING_TOKEN.match(data, found.end(), end)
        if string is not None:
            self._moved(data, string.start() + 1, string.end() - 1, at, string.end())
            return string.end(), False
        rest = data[found.end() : found.end() + 2]
        if not last and end - at <= LONGEST_TOKEN and (len(rest) < 2 or rest[:1] in b"\"'/"):
            return at, True
        return found.end(), False

    def _moved(self, data: bytes, first: int, last: int, start: int, end: int) -> None:
        url = data[first:last].strip(b"\t\n\f\r ")
        moved = self._rules.moved(url, self._page) if url else None
        if moved is None or not moved.isascii():
            return
        first += data[first:last].find(url)
        if moved.endswith(url):
            self._change(first, first, moved[: len(moved) - len(url)], start, end)
        else:
            self._change(first, first + len(url), moved, start, end)


def style_changes(style: bytes, rules: CdnRules, page: Page) -> list[tuple[int, int, bytes]]:
    """Within the declarations of a ``style`` attribute."""
    if b"(" not in style:
        return []
    found: list[tuple[int, int, bytes]] = []
    CssRewriter(rules, page, lambda first, last, text, *_: found.append((first, last, text))).scan(
        style, 0, len(style), last=True
    )
    return found
