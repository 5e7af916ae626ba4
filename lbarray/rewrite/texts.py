"""What is no markup in a page: comments, elements whose content is text, tags too long to be held.

These states pass over octets without reading them as tags, each to its own end (WHATWG HTML §13.2.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lbarray.rewrite import tokens
from lbarray.rewrite.css import CssRewriter
from lbarray.rewrite.elements import Change
from lbarray.rewrite.foreign import ForeignContent
from lbarray.rewrite.json import LONGEST_JSON, import_map_changes
from lbarray.rewrite.rules import CdnRules, Page

__all__ = [
    "IN_CDATA",
    "IN_COMMENT",
    "IN_DECLARATION",
    "IN_IMPORT_MAP",
    "IN_NOSCRIPT",
    "IN_TAG",
    "LONGEST_TAG",
    "MARKUP",
    "REST",
    "TextStates",
]

#: Octets of one tag that are held while its end is awaited. Of a longer one nothing is changed.
LONGEST_TAG = 32768

# Where we are, when not in markup nor in an element whose content is text.
MARKUP: Final = b""
IN_COMMENT: Final = b"!--"
IN_DECLARATION: Final = b"!"
IN_CDATA: Final = b"![CDATA["
IN_TAG: Final = b"<"
IN_NOSCRIPT: Final = b"noscript"
IN_IMPORT_MAP: Final = b"{"
REST: Final = b"*"
#: What ends it, and how many octets of that may have come already.
_UNTIL = {IN_DECLARATION: (b">", 0), IN_CDATA: (b"]]>", 2)}


class TextStates:
    """Where a page is, and how it goes on from there.

    :ivar left: why the rest of the page stays as it is; ``""`` as long as it does not.
    """

    def __init__(self, rules: CdnRules, page: Page) -> None:
        self._rules = rules
        self._page = page
        self._inside = MARKUP
        self._after = MARKUP
        self._quote = b""
        self._script_depth = 0
        self._foreign = ForeignContent()
        self._css: CssRewriter | None = None
        self.left = ""

    def _markup(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """On in markup: (where, no further without more data)."""
        raise NotImplementedError

    def _change(self, start: int, end: int, changes: Sequence[Change]) -> None:
        """Something between ``start`` and ``end`` is replaced."""
        raise NotImplementedError

    def _leave(self, why: str) -> None:
        """From here on nothing is changed any more."""
        self.left = why
        self._inside = REST

    def _text(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """Through a comment or an element without markup: (where, no further without more data)."""
        inside = self._inside
        if inside == b"script":
            return self._script(data, at, size)
        if inside == REST:
            return size, True
        if inside == b"style" and self._css is not None:
            return self._style(data, at, size)
        if inside == IN_COMMENT:
            # "<!-->" and "<!--->" are over at once; from there on only "-->" and "--!>" count.
            end = tokens.COMMENT_END.search(data, at + 2 if data.startswith(b"<!--", at) else at, size)
            if end is None:
                return self._keep(at, size, 3)
            self._inside = MARKUP
            return end.end(), False
        if inside == IN_TAG:
            return self._in_tag(data, at, size)
        if inside == IN_NOSCRIPT:
            return self._noscript(data, at, size)
        if inside == IN_IMPORT_MAP:
            return self._import_map(data, at, size)
        if inside in _UNTIL:
            mark, octets = _UNTIL[inside]
            place = data.find(mark, at, size)
            if place < 0:
                return self._keep(at, size, octets)
            self._inside = MARKUP
            return place + len(mark), False
        end = tokens.ENDS[inside].search(data, at, size)
        if end is None or inside == b"plaintext":
            return self._keep(at, size, len(inside) + 3)
        self._inside = MARKUP
        return end.start(), False

    def _script(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """A script ends at its end tag, unless that one closes a ``<script`` within ``<!--`` (§13.2.5.20-31)."""
        while mark := tokens.SCRIPT_MARK.search(data, at, size):
            word = mark.group().lower()
            at = mark.end()
            if word == b"<!--":
                self._script_depth = max(self._script_depth, 1)
                at -= 2  # its dashes may be the closing ones too: <!-->
            elif word == b"-->":
                self._script_depth = 0
            elif word == b"<script":
                self._script_depth = 2 if self._script_depth else 0
            elif self._script_depth == 2:
                self._script_depth = 1
            else:
                self._inside = MARKUP
                return mark.start(), False
        return self._keep(at, size, 9)

    def _style(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        assert self._css is not None
        found = tokens.ENDS[b"style"].search(data, at, size)
        end = found.start() if found else max(at, size - 8)
        reached = self._css.scan(data, at, end, last=found is not None)
        if found is not None:
            self._inside, self._css = MARKUP, None
            return end, False
        return reached, True

    def _import_map(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        found = tokens.ENDS[b"script"].search(data, at, size)
        if found is None or b"<!--" in data[at : found.start()]:
            if found is None and size - at <= LONGEST_JSON:
                return at, True
            self._inside = b"script"
            return at, False
        changes = [
            (at + first, at + last, text)
            for first, last, text in import_map_changes(data[at : found.start()], self._rules, self._page)
        ]
        if changes:
            self._change(at, found.start(), changes)
        self._inside = MARKUP
        return found.start(), False

    def _noscript(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """Its content is a text for browsers that run scripts and markup for others: it must be whole for both."""
        found = tokens.NOSCRIPT_END.search(data, at, size)
        if found is None:
            if size - at <= LONGEST_TAG:
                return at, True
            self._leave("ambiguous")
            return at, False
        end = found.start()
        self._inside = MARKUP
        stuck = False
        while at < end and not stuck and self._inside != REST:
            at, stuck = self._text(data, at, end) if self._inside else self._markup(data, at, end)
        if self._inside != REST and (self._inside or at < end or self._foreign):
            self._leave("ambiguous")
        return end, False

    @staticmethod
    def _keep(at: int, size: int, octets: int) -> tuple[int, bool]:
        return max(at, size - octets), True

    def _in_tag(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        if self._quote:
            end = data.find(self._quote, at)
            if end < 0:
                return size, True
            self._quote = b""
            at = end + 1
        whole = tokens.WHOLE_ATTRIBUTES.match(data, at)
        assert whole is not None  # it matches the empty string as well
        at = whole.end()
        if data.startswith(b">", at):
            self._inside = self._after
            return at + 1, False
        begun = tokens.BEGUN_VALUE.match(data, at)
        if begun is None:
            if size - at > LONGEST_TAG:  # a name, or a value without quotation marks, that does not end
                self._leave("tag_too_long")
                return at, False
            return at, True
        self._quote = begun[1]
        return begun.end(), False
