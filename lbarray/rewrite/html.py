"""HTML while it streams: finds the tags that hold URLs and changes those, and not one other octet.

The grammar is the tokenizer's (WHATWG HTML §13.2.5) as far as it decides where tags begin and end: comments,
declarations, quoted attributes, and elements whose content is text. Everything up to the next tag of
interest is passed over inside one regular expression, whose every loop is possessive: it is linear in its input.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from lbarray.rewrite import tokens
from lbarray.rewrite.charset import ascii_inside_by_meta
from lbarray.rewrite.places import LINK_TYPES, PRELOADS_LEFT, Kind
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.srcset import candidate_urls

__all__ = ["LONGEST_TAG", "HtmlRewriter", "TagTooLong"]

#: Octets of one tag that are held while its end is awaited. Of a longer one nothing is changed.
LONGEST_TAG = 32768

_ENDS = tokens.ENDS
#: What a URL may have around it (WHATWG HTML §2.4.1).
_SPACE = b"\t\n\f\r "
# Where we are, when not in markup nor in an element whose content is text.
_MARKUP = b""
_IN_COMMENT = b"!--"
_IN_DECLARATION = b"!"
_IN_CDATA = b"![CDATA["
_IN_TAG = b"<"
_REST = b"*"
#: What ends it, and how many octets of that may have come already.
_UNTIL = {_IN_DECLARATION: (b">", 0), _IN_CDATA: (b"]]>", 2)}


class TagTooLong(Exception):
    """A name, or a value without quotation marks, beyond :data:`LONGEST_TAG`: nothing that follows is rewritten."""


class HtmlRewriter:
    """One page. :meth:`feed` and :meth:`finish` give out what may leave; nothing is held but an unfinished tag.

    :param page: where relative URLs start.
    :ivar rewritten: how many URLs were changed.
    :ivar long_tags: how many tags were beyond :data:`LONGEST_TAG`.
    :ivar unsigned: how many tags with ``integrity`` stayed as they are for want of ``crossorigin``.
    :ivar left: why the rest of the page stays as it is; ``""`` as long as it does not.
    """

    def __init__(self, rules: CdnRules, page: Page) -> None:
        self._rules = rules
        self._page = page
        self._places = tokens.finders(rules.attributes)
        self._based = False
        self._held = b""
        self._inside = _MARKUP
        self._after = _MARKUP
        self._quote = b""
        self._script_depth = 0
        self._foreign_depth = 0
        self.rewritten = 0
        self.long_tags = 0
        self.unsigned = 0
        self.left = ""

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
                if self._inside or size - at <= LONGEST_TAG:
                    break
                at = self._long(data, at)
                if not self._inside:
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
        skipped = tokens.SKIP.match(data, at)
        assert skipped is not None  # it matches the empty string as well
        at = skipped.end()
        if at == len(data):
            return at, True, done
        tag = tokens.TAG.match(data, at)
        if tag is None:
            at, stuck = self._no_tag(data, at)
            return at, stuck, done
        name = tag[1].lower()
        end = tag.end()
        if end - at > LONGEST_TAG:  # the same as if it had come in pieces
            self.long_tags += 1
        elif name in self._places:
            done = self._tag(data, tag, name, out, done)
        elif name == b"base":
            if not self._based:
                self._base(tag)
        elif name == b"meta":
            self._meta(tag)
        closed = data[end - 2] == 0x2F
        if name in _ENDS:
            # In SVG "/>" ends an element; an editor's empty <title/> is not the beginning of a text.
            if not (closed and self._foreign_depth and name != b"script"):
                self._inside = name
                self._script_depth = 0
        elif name in tokens.FOREIGN and not closed:
            self._foreign_depth += 1
        return end, False, done

    def _no_tag(self, data: bytes, at: int) -> tuple[int, bool]:
        if data.startswith(b"<!--", at):
            self._inside = _IN_COMMENT
            return at, False
        if data.startswith(tokens.CDATA, at):
            self._inside = _IN_CDATA if self._foreign_depth else _IN_DECLARATION  # §13.2.5.42
            return at + len(tokens.CDATA), False
        foreign = tokens.FOREIGN_END.match(data, at)
        if foreign is not None:
            self._foreign_depth = max(0, self._foreign_depth - 1)
            return foreign.end(), False
        return at, True

    def _long(self, data: bytes, at: int) -> int:
        """Into a tag or declaration that is too long to be held: it goes by, with its grammar kept."""
        start = tokens.START.match(data, at)
        if start is None:
            if data[at + 1 : at + 2] in (b"!", b"?", b"/") and not data[at + 2 : at + 3].isalpha():
                self._inside = _IN_DECLARATION
            return at
        self.long_tags += 1
        self._inside, self._after, self._quote = _IN_TAG, _MARKUP, b""
        name = start[1].lower()
        ending = data.startswith(b"</", at)
        if name in tokens.FOREIGN:
            self._foreign_depth = max(0, self._foreign_depth + (-1 if ending else 1))
        elif name in _ENDS and not ending:
            self._after = name
            self._script_depth = 0
        return start.end()

    def _in_tag(self, data: bytes, at: int) -> tuple[int, bool]:
        if self._quote:
            end = data.find(self._quote, at)
            if end < 0:
                return len(data), True
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
            return at, True
        self._quote = begun[1]
        return begun.end(), False

    def _tag(self, data: bytes, tag: re.Match[bytes], name: bytes, out: list[bytes], done: int) -> int:
        places, find = self._places[name]
        at, end = tag.span(1)[1], tag.end()
        found: dict[bytes, tuple[int, int]] = {}
        while pair := find(data, at, end):
            at = pair.end()
            first, last = pair.span(2)
            if first < last and data[first] in b"\"'":
                first, last = first + 1, last - 1
            # Of two attributes of one name the second does not count (§13.2.5.33).
            found.setdefault(pair[1].lower(), (first, last))
        if name == b"link" and not _loads(data, found):
            return done
        changes: list[tuple[int, int, bytes]] = []
        for attribute, (first, last) in found.items():
            kind = places.get(attribute)
            if kind is None or first == last:
                continue
            value = data[first:last]
            if kind is Kind.URL:
                written = value.strip(_SPACE)
                if moved := self._moved(written):
                    begin = first + value.find(written)
                    changes.append((begin, begin + len(written), moved))
            else:
                for begin, stop in candidate_urls(value):
                    if moved := self._moved(value[begin:stop]):
                        changes.append((first + begin, first + stop, moved))
        if not changes:
            return done
        integrity = found.get(b"integrity")
        if integrity is not None and b"crossorigin" not in found and integrity[0] < integrity[1]:
            # From another origin browsers check, and use, only what was asked for with CORS (W3C SRI §3.3.2).
            if not self._rules.add_crossorigin:
                self.unsigned += 1
                return done
            changes.insert(0, (tag.end(1), tag.end(1), b' crossorigin="anonymous"'))
            self.rewritten -= 1
        for first, last, written in changes:
            out.append(data[done:first])
            out.append(written)
            done = last
        self.rewritten += len(changes)
        return done

    def _meta(self, tag: re.Match[bytes]) -> None:
        """What may forbid us the rest of the page: a charset that we cannot read, a policy against the CDN."""
        values: dict[bytes, bytes] = {}
        for pair in tokens.PAIR.finditer(tag.string, tag.end(1), tag.end()):
            values.setdefault(pair[1].lower(), (pair[2] or b"").strip(b"\"'"))
        about = values.get(b"http-equiv", b"").strip().lower()
        content = html.unescape(values.get(b"content", b"").decode("latin-1")).encode("latin-1", "replace")
        label = values.get(b"charset", content if about == b"content-type" else b"")
        if not ascii_inside_by_meta(label):
            self.left = "charset"
        elif about == b"content-security-policy" and not self._rules.permitted_by([content]):
            self.left = "csp"
        if self.left:
            self._inside = _REST

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
        while (pair := tokens.PAIR.match(tag.string, at, tag.end())) and pair.end() > at:
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
            end = tokens.COMMENT_END.search(data, at + 2 if data.startswith(b"<!--", at) else at)
            if end is None:
                return self._keep(data, at, 3)
            self._inside = _MARKUP
            return end.end(), False
        if self._inside == b"script":
            return self._script(data, at)
        if self._inside == _IN_TAG:
            return self._in_tag(data, at)
        if self._inside == _REST:
            return len(data), True
        if self._inside in _UNTIL:
            mark, octets = _UNTIL[self._inside]
            place = data.find(mark, at)
            if place < 0:
                return self._keep(data, at, octets)
            self._inside = _MARKUP
            return place + len(mark), False
        end = _ENDS[self._inside].search(data, at)
        if end is None or self._inside == b"plaintext":
            return self._keep(data, at, len(self._inside) + 3)
        self._inside = _MARKUP
        return end.start(), False

    def _script(self, data: bytes, at: int) -> tuple[int, bool]:
        """A script ends at its end tag, unless that one closes a ``<script`` within ``<!--`` (§13.2.5.20-31)."""
        while mark := tokens.SCRIPT_MARK.search(data, at):
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


def _loads(data: bytes, found: Mapping[bytes, tuple[int, int]]) -> bool:
    """This ``link`` is of a kind that is loaded (WHATWG HTML §4.6.7)."""
    if b"rel" not in found:
        return False
    first, last = found[b"rel"]
    if LINK_TYPES.isdisjoint(data[first:last].lower().split()):
        return False
    first, last = found.get(b"as", (0, 0))
    return data[first:last].lower() not in PRELOADS_LEFT
