"""HTML while it streams: finds the tags that hold URLs and changes those, and not one other octet.

The grammar is the tokenizer's (WHATWG HTML §13.2.5) as far as it decides where tags begin and end: comments,
declarations, quoted attributes, and elements whose content is text. Everything up to the next tag of
interest is passed over inside one regular expression, whose every loop is possessive: it is linear in its input.
"""

from __future__ import annotations

import html
import re

from lbarray.rewrite.places import LINK_TYPES, PLACES, Kind
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.srcset import candidate_urls

__all__ = ["LONGEST_TAG", "HtmlRewriter", "TagTooLong"]

#: Octets of one tag that are held while its end is awaited.
LONGEST_TAG = 32768

_SPACE = rb"\t\n\f\r "
_NAME = rb"(?:=[^" + _SPACE + rb"/>=]*+|[^" + _SPACE + rb"/>=]++)"
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^" + _SPACE + rb">\"'][^" + _SPACE + rb">]*+|(?=>))"
_EQUALS = rb"[" + _SPACE + rb"]*+=[" + _SPACE + rb"]*+"
# A name with "=" must have its value in the buffer: otherwise the tag is not complete yet.
_ATTRIBUTE = _NAME + rb"(?:" + _EQUALS + _VALUE + rb"|(?!" + _EQUALS + rb"))"
_ATTRIBUTES = rb"(?:[" + _SPACE + rb"/]*+" + _ATTRIBUTE + rb")*+[" + _SPACE + rb"/]*+>"

#: Elements whose content is no markup (§13.2.6.2: raw text and escapable raw text).
_TEXT_ONLY = (b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes", b"plaintext")
_WANTED = b"|".join(sorted({*PLACES, *_TEXT_ONLY, b"base"}))
_COMMENT = rb"<!--(?:-?>|(?:[^-]++|-(?!-!?>))*+--!?>)"

# Only the names are compared without case: a flag for the whole would slow every set of characters down.
_NAMED = rb"(?i:" + _WANTED + rb")(?=[" + _SPACE + rb"/>])"
_SKIP = re.compile(
    rb"(?:[^<]++"
    rb"|</[a-zA-Z0-9]++>"
    rb"|<(?=[^a-zA-Z/!?])"
    rb"|<(?!" + _NAMED + rb")[a-zA-Z][^" + _SPACE + rb"/>]*+(?:>|" + _ATTRIBUTES + rb")"
    rb"|</[a-zA-Z][^" + _SPACE + rb"/>]*+" + _ATTRIBUTES + rb"|</(?=[^a-zA-Z])[^>]*+>"
    rb"|" + _COMMENT + rb"|<!(?!--)[^>]*+>"
    rb"|<\?[^>]*+>)*+"
)
_TAG = re.compile(rb"<(" + _NAMED + rb")" + _ATTRIBUTES)
_PAIR = re.compile(
    rb"[" + _SPACE + rb"/]*+(" + _NAME + rb")(?:" + _EQUALS + rb"(\"[^\"]*+\"|'[^']*+'|[^" + _SPACE + rb">\"'][^"
    rb"" + _SPACE + rb">]*+|(?=>)))?+"
)
_COMMENT_END = re.compile(rb"--!?>")
_SCRIPT_MARK = re.compile(rb"<!--|-->|<script(?=[\t\n\f\r />])|</script(?=[\t\n\f\r />])", re.IGNORECASE)
_ENDS = {name: re.compile(rb"</" + name + rb"(?=[\t\n\f\r />])", re.IGNORECASE) for name in _TEXT_ONLY}
_MARKUP = b""
_IN_COMMENT = b"!--"


class TagTooLong(Exception):
    """A tag beyond :data:`LONGEST_TAG`: nothing of it is rewritten, nor of what follows."""


class HtmlRewriter:
    """One page. :meth:`feed` and :meth:`finish` give out what may leave; nothing is held but an unfinished tag.

    :param page: where relative URLs start.
    :ivar rewritten: how many URLs were changed.
    """

    def __init__(self, rules: CdnRules, page: Page) -> None:
        self._rules = rules
        self._page = page
        self._based = False
        self._held = b""
        self._inside = _MARKUP
        self._script_depth = 0
        self.rewritten = 0

    @property
    def held(self) -> bytes:
        """What was fed and has not been given out yet, as it came."""
        return self._held

    def feed(self, data: bytes) -> bytes:
        """:raises TagTooLong: what came is in :attr:`held` still, but for what was given out before."""
        data = self._held + data if self._held else data
        out: list[bytes] = []
        at = done = 0
        size = len(data)
        while at < size:
            if self._inside:
                at, stuck = self._text(data, at)
            else:
                at, stuck, changed = self._markup(data, at, out, done)
                done = changed
            if stuck:
                break
        out.append(data[done:at])
        self._held = data[at:]
        if len(self._held) > LONGEST_TAG:
            self._given = b"".join(out)
            raise TagTooLong(self._given)
        return b"".join(out)

    def finish(self) -> bytes:
        """The rest: an unfinished tag is no tag."""
        held, self._held = self._held, b""
        return held

    def _markup(self, data: bytes, at: int, out: list[bytes], done: int) -> tuple[int, bool, int]:
        """On to behind the next tag of interest: (where, no further without more data, given out up to)."""
        skipped = _SKIP.match(data, at)
        assert skipped is not None  # it matches the empty string as well
        at = skipped.end()
        if at == len(data):
            return at, True, done
        tag = _TAG.match(data, at)
        if tag is None:
            if data.startswith(b"<!--", at):
                self._inside = _IN_COMMENT
                return at, False, done
            return at, True, done
        name = tag[1].lower()
        attributes = PLACES.get(name)
        if attributes is not None:
            done = self._tag(data, tag, name, attributes, out, done)
        elif name == b"base" and not self._based:
            self._base(tag)
        if name in _ENDS:
            self._inside = name
            self._script_depth = 0
        return tag.end(), False, done

    def _tag(
        self, data: bytes, tag: re.Match[bytes], name: bytes, places: dict[bytes, Kind], out: list[bytes], done: int
    ) -> int:
        found: list[tuple[int, int, Kind]] = []
        loads = name != b"link"
        seen: list[bytes] = []
        for pair in _PAIR.finditer(data, tag.end(1), tag.end()):
            attribute = pair[1].lower()
            kind = places.get(attribute)
            if (kind is None and (loads or attribute != b"rel")) or attribute in seen:
                continue
            start, end = pair.span(2)
            if start < 0:  # no value
                continue
            seen.append(attribute)  # of two attributes of one name the second does not count (§13.2.5.33)
            if data[start] in b"\"'":
                start, end = start + 1, end - 1
            if kind is not None:
                found.append((start, end, kind))
            else:
                loads = not LINK_TYPES.isdisjoint(data[start:end].lower().split())
        if not loads:
            return done
        for start, end, kind in found:
            spans = _candidates(data, start, end) if kind is Kind.SRCSET else [_without_space(data, start, end)]
            for first, last in spans:
                moved = self._moved(data[first:last])
                if moved is not None:
                    out.append(data[done:first])
                    out.append(moved)
                    done = last
                    self.rewritten += 1
        return done

    def _moved(self, written: bytes) -> bytes | None:
        """A URL as it is written in the attribute; with character references taken into account."""
        if b"&" not in written:
            return self._rules.moved(written, self._page)
        plain = html.unescape(written.decode("latin-1")).encode("utf-8", "surrogateescape")
        moved = self._rules.moved(plain, self._page)
        if moved is None:
            return None
        if moved.endswith(plain):  # a mere insertion: what is written stays as it is
            return moved[: len(moved) - len(plain)] + written
        return moved.replace(b"&", b"&amp;").replace(b'"', b"&quot;").replace(b"'", b"&#39;")

    def _base(self, tag: re.Match[bytes]) -> None:
        at = tag.end(1)
        while (pair := _PAIR.match(tag.string, at, tag.end())) and pair.end() > at:
            at = pair.end()
            if pair[1].lower() == b"href" and pair[2] is not None:
                self._based = True
                href = html.unescape(pair[2].strip(b"\"'").decode("latin-1")).strip().encode("latin-1", "replace")
                self._page = self._rules.based(href, self._page)
                return

    def _text(self, data: bytes, at: int) -> tuple[int, bool]:
        """Through a comment or an element without markup: (where, no further without more data)."""
        if self._inside == _IN_COMMENT:
            # "<!-->" and "<!--->" are over at once; from there on only "-->" and "--!>" count.
            end = _COMMENT_END.search(data, at + 2 if data.startswith(b"<!--", at) else at)
            if end is None:
                return self._keep(data, at, 3)
            self._inside = _MARKUP
            return end.end(), False
        if self._inside == b"script":
            return self._script(data, at)
        end = _ENDS[self._inside].search(data, at)
        if end is None or self._inside == b"plaintext":
            return self._keep(data, at, len(self._inside) + 3)
        self._inside = _MARKUP
        return end.start(), False

    def _script(self, data: bytes, at: int) -> tuple[int, bool]:
        """A script ends at its end tag, unless that one closes a ``<script`` within ``<!--`` (§13.2.5.20-31)."""
        while mark := _SCRIPT_MARK.search(data, at):
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
                self._inside = _MARKUP
                return mark.start(), False
        return self._keep(data, at, 9)

    def _keep(self, data: bytes, at: int, octets: int) -> tuple[int, bool]:
        return max(at, len(data) - octets), True


def _candidates(data: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where the URLs of a srcset stand."""
    return [(start + first, start + last) for first, last in candidate_urls(data[start:end])]


def _without_space(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A URL may have white space around it (WHATWG HTML, valid URL potentially surrounded by spaces)."""
    while start < end and data[start] in b"\t\n\f\r ":
        start += 1
    while end > start and data[end - 1] in b"\t\n\f\r ":
        end -= 1
    return start, end
