"""HTML while it streams: finds the tags that hold URLs and changes those, and not one other octet.

The grammar is the tokenizer's (WHATWG HTML §13.2.5); of the tree builder (§13.2.6) as much is kept as decides what the
tokenizer does next: elements whose content is text, SVG and MathML. Everything up to the next tag of interest is
passed over at once, in C or inside one regular expression whose every loop is possessive: it is linear in its input.

Where browsers could disagree about what is markup, nothing of the rest is changed (:attr:`HtmlRewriter.left`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lbarray.rewrite import tokens
from lbarray.rewrite.charset import ascii_inside_by_meta
from lbarray.rewrite.css import CssRewriter
from lbarray.rewrite.elements import CROSSORIGIN, Change, attributes_of, changes_of, changes_of_tag, meta_change
from lbarray.rewrite.places import Kind
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.texts import (
    IN_CDATA,
    IN_COMMENT,
    IN_DECLARATION,
    IN_IMPORT_MAP,
    IN_NOSCRIPT,
    IN_TAG,
    LONGEST_TAG,
    MARKUP,
    TextStates,
)
from lbarray.rewrite.tokens import TAG, TEXT_ONLY

__all__ = ["LONGEST_TAG", "HtmlRewriter"]

#: Text-only elements that every tree builder accepts in ``select``.
_IN_SELECT = frozenset([b"script", b"textarea"])
#: Attributes of a ``font`` that ends SVG, encodings of an ``annotation-xml`` that holds HTML (§13.2.6.5).
_BREAKING = frozenset([b"color", b"face", b"size"])
_HTML_ENCODINGS = (b"text/html", b"application/xhtml+xml")


class HtmlRewriter(TextStates):
    """One page. :meth:`feed` and :meth:`finish` give out what may leave; nothing is held but an unfinished tag.

    :param page: where relative URLs start.
    :param compiled: scan by ``_scan.c``.
    :ivar rewritten: how many URLs were changed.
    :ivar long_tags: how many tags were beyond :data:`LONGEST_TAG`.
    :ivar unsigned: how many tags with ``integrity`` stayed as they are for want of ``crossorigin``.
    :ivar left: why the rest of the page stays as it is; ``""`` as long as it does not.
    :ivar marks: when a list, each changed tag is added: where it begins and ends in what was fed, and where its end
        is in what was given out.
    """

    def __init__(self, rules: CdnRules, page: Page, *, compiled: bool = tokens.COMPILED) -> None:
        super().__init__(rules, page)
        self._grammar = tokens.grammar(rules.attributes, rules.css, rules.embeds, compiled)
        self._based = False
        self._held = b""
        self._in_select = self._in_frameset = self._col_in_template = False
        self._templates = 0
        self._before = 0
        self._given = 0
        self.rewritten = 0
        self.long_tags = 0
        self.unsigned = 0
        self.marks: list[tuple[int, int, int]] | None = None
        # Of one feeding.
        self._data = b""
        self._out: list[bytes] = []
        self._done = 0
        self._grown = 0

    @property
    def held(self) -> bytes:
        """What was fed and has not been given out yet, as it came."""
        return self._held

    def feed(self, data: bytes) -> bytes:
        """More of the page in, what may leave out."""
        if self._held:
            if not self._inside and b">" not in data and len(self._held) + len(data) <= LONGEST_TAG:
                self._held += data  # no tag ends here
                return b""
            data = self._held + data
        return self._run(data)

    def finish(self) -> bytes:
        """The rest: an unfinished tag is no tag."""
        held, self._held = self._held, b""
        if self._inside == b"style" and self._css is not None:
            self._data, self._out, self._done, self._grown = held, [], 0, 0
            self._css.scan(held, 0, len(held), last=True)
            self._out.append(held[self._done :])
            return b"".join(self._out)
        return held

    def _run(self, data: bytes) -> bytes:
        self._data = data
        out = self._out = []
        self._done = self._grown = 0
        at = 0
        size = len(data)
        while at < size:
            at, stuck = self._text(data, at, size) if self._inside else self._markup(data, at, size)
            if stuck:
                if self._inside or size - at <= LONGEST_TAG:
                    break
                at = self._long(data, at)
                if not self._inside:  # a name that does not end
                    self._leave("tag_too_long")
        self._data = b""
        self._before += at
        self._given += at + self._grown
        if not self._done:
            self._held = data[at:] if at < size else b""
            return data[:at] if at < size else data
        self._held = data[at:]
        out.append(data[self._done : at])
        return b"".join(out)

    # Markup

    def _markup(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """On to behind the next tag that is not passed over: (where, no further without more data)."""
        if self._foreign:
            return self._foreign_markup(data, at, size)
        scan = self._grammar.scan
        known = self._rules.known if not self._page.foreign else {}
        out, done, grown, marks = self._out, self._done, self._grown, self.marks
        script = False
        while not script:
            at, start, value, element, quoted = scan(data, at, size)
            if element is None or quoted is None:
                break
            script = len(element) == 6 and element.lower() == b"script"
            if at - start > LONGEST_TAG:  # the same as if it had come in pieces
                self.long_tags += 1
                continue
            change = known.get((element, quoted))
            if change is None:
                change = self._look_up(element, quoted)
            if change:  # as _change does, but this is where the time goes
                skipped, replaced, text = change
                out.append(data[done : value + skipped])
                out.append(text)
                done = value + skipped + replaced
                grown += len(text) - replaced
                self.rewritten += 1
                if marks is not None:
                    marks.append((self._before + start, self._before + at, self._given + at + grown))
        self._done, self._grown = done, grown
        if script:
            self._begin_text(b"script")
            return at, False
        if at == size:
            return at, True
        tag = TAG.match(data, at, size)
        if tag is None:
            return self._no_tag(data, at, size)
        end = tag.end()
        if tag[1]:
            self._context_ends(tag[2].lower())
            return end, False
        self._html_tag(data, tag)
        return end, False

    def _look_up(self, element: bytes, quoted: bytes) -> tuple[int, int, bytes] | tuple[()]:
        """What becomes of an element's ``src``, alone of interest; kept where it depends on nothing else."""
        kind = self._grammar.kinds.of(element.lower())[b"src"]
        found = changes_of(quoted, self._rules, self._page, kind)
        change = (found[0][0], found[0][1] - found[0][0], found[0][2]) if found else ()
        value = quoted.lstrip(b"\"'")
        if value[:1] == b"/" and value[1:2] != b"/" and not self._page.foreign:
            self._rules.keep((element, quoted), change)
        return change

    def _html_tag(self, data: bytes, tag: re.Match[bytes]) -> None:
        """A start tag to which HTML's rules apply."""
        name = tag[2].lower()
        if tag.end() - tag.start() > LONGEST_TAG:
            self.long_tags += 1
        elif name == b"base":
            self._base(tag)
        elif name == b"meta":
            self._meta(tag)
        else:
            self._rewrite(tag, name, self._grammar.kinds.of(name))
        if name in TEXT_ONLY:
            if self._unclear(name):
                self._leave("ambiguous")
            else:
                self._begin_text(name, tag)
        elif name in tokens.FOREIGN:
            if self._in_select or self._in_frameset or self._col_in_template:
                self._leave("ambiguous")
            else:
                self._foreign.start(name, closed=tag[4].endswith(b"/"))
        elif name == b"noscript":
            if self._unclear(name) or self._foreign:
                self._leave("ambiguous")
            else:
                self._inside = IN_NOSCRIPT
        elif name == b"select":
            self._in_select = True
        elif name == b"frameset":
            self._in_frameset = True
        elif name == b"template":
            self._templates += 1
        elif name == b"col":
            self._col_in_template = self._templates > 0

    def _unclear(self, name: bytes) -> bool:
        """Some tree builders pass over this tag here, and then its content is markup (§13.2.6.4)."""
        return (
            (self._in_select and name not in _IN_SELECT)
            or (self._in_frameset and name != b"noframes")
            or self._col_in_template
            or self._foreign.doubt
        )

    def _context_ends(self, name: bytes) -> None:
        if name == b"select":
            self._in_select = False
        elif name == b"template" and self._templates:
            self._templates -= 1
            self._col_in_template = self._col_in_template and self._templates > 0

    def _begin_text(self, name: bytes, tag: re.Match[bytes] | None = None) -> None:
        if name == b"script" and (self._in_frameset or self._col_in_template):
            self._leave("ambiguous")
            return
        self._inside = name
        self._script_depth = 0
        if name == b"style" and self._rules.css:
            self._css = CssRewriter(self._rules, self._page, self._css_change)
        elif name == b"script" and tag is not None and self._rules.import_maps and b"importmap" in tag[3].lower():
            self._inside = IN_IMPORT_MAP

    def _css_change(self, first: int, last: int, text: bytes, start: int, end: int) -> None:
        self._change(start, end, ((first, last, text),))

    def _no_tag(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        if data.startswith(b"<!--", at):
            self._inside = IN_COMMENT
            return at, False
        if data.startswith(tokens.CDATA, at):
            if self._foreign.doubt:
                self._leave("ambiguous")
                return at, False
            self._inside = IN_CDATA if self._foreign.cdata else IN_DECLARATION  # §13.2.5.42
            return at + len(tokens.CDATA), False
        return at, True

    def _foreign_markup(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        """On behind the next tag in SVG or MathML."""
        skipped = tokens.FOREIGN_SKIP.match(data, at, size)
        assert skipped is not None
        at = skipped.end()
        if at == size:
            return at, True
        tag = TAG.match(data, at, size)
        if tag is None:
            return self._no_foreign_tag(data, at, size)
        name = tag[2].lower()
        if tag[1]:
            self._foreign.end(name)
            self._context_ends(name)
            return tag.end(), False
        if self._foreign.doubt and (name in TEXT_ONLY or name in (b"noscript", b"plaintext")):
            self._leave("ambiguous")
            return tag.end(), False
        if self._foreign.start(
            name,
            closed=tag[4].endswith(b"/"),
            breaks=name == b"font" and not _BREAKING.isdisjoint(attributes_of(tag)),
            html_annotation=name == b"annotation-xml"
            and attributes_of(tag).get(b"encoding", b"").lower() in _HTML_ENCODINGS,
        ):
            if name in tokens.FOREIGN:
                return tag.end(), False
            self._html_tag(data, tag)
        elif tag.end() - tag.start() > LONGEST_TAG:
            self.long_tags += 1
        elif not self._foreign.doubt:
            self._rewrite(tag, name, self._grammar.kinds.of_svg(name))
        return tag.end(), False

    def _no_foreign_tag(self, data: bytes, at: int, size: int) -> tuple[int, bool]:
        rest = data[at : at + len(tokens.CDATA)]
        following = rest[1:2]
        if not following or following.isalpha() or (following == b"/" and (len(rest) < 3 or rest[2:3].isalpha())):
            return at, True
        if rest.startswith((b"<!--", tokens.CDATA)):
            return self._no_tag(data, at, size)
        if b"<!--".startswith(rest) or tokens.CDATA.startswith(rest):
            return at, True
        if following in b"/!?":
            self._inside = IN_DECLARATION
            return at + 2, False
        return at + 1, False

    def _long(self, data: bytes, at: int) -> int:
        """Into a tag or declaration that is too long to be held: it goes by, with its grammar kept."""
        start = tokens.START.match(data, at)
        if start is None:
            if data[at + 1 : at + 2] in (b"!", b"?", b"/") and not data[at + 2 : at + 3].isalpha():
                self._inside = IN_DECLARATION
            return at
        self.long_tags += 1
        name = start[1].lower()
        ending = data.startswith(b"</", at)
        if self._foreign or name in tokens.FOREIGN or (name in tokens.CONTEXTS and not ending):
            # Too much depends on how it ends.
            self._leave("tag_too_long")
            return at
        self._inside, self._after, self._quote = IN_TAG, MARKUP, b""
        if ending:
            self._context_ends(name)
        elif name in TEXT_ONLY:
            if self._unclear(name):
                self._leave("ambiguous")
                return at
            self._after = name
            self._script_depth = 0
            self._css = None
        return start.end()

    # One tag

    def _rewrite(self, tag: re.Match[bytes], name: bytes, kinds: Mapping[bytes, Kind]) -> None:
        found, unsigned = changes_of_tag(tag, name, kinds, self._rules, self._page)
        self.unsigned += unsigned
        if found:
            self._change(tag.start(), tag.end(), found)

    def _change(self, start: int, end: int, changes: Sequence[Change]) -> None:
        data, out = self._data, self._out
        done = self._done
        for first, last, written in changes:
            out.append(data[done:first])
            out.append(written)
            self._grown += len(written) - (last - first)
            done = last
        self._done = done
        self.rewritten += len(changes) - (changes[0][2] is CROSSORIGIN)
        if self.marks is not None:
            self.marks.append((self._before + start, self._before + end, self._given + end + self._grown))

    def _meta(self, tag: re.Match[bytes]) -> None:
        """What may forbid us the rest of the page: a charset that we cannot read, a policy against the CDN."""
        values = attributes_of(tag)
        about = values.get(b"http-equiv", b"").strip().lower()
        content = values.get(b"content", b"")
        label = values.get(b"charset", content if about == b"content-type" else b"")
        if not ascii_inside_by_meta(label):
            self._leave("charset")
        elif about == b"content-security-policy" and not self._rules.permitted_by([content]):
            self._leave("csp")
        elif self._rules.metas:
            change = meta_change(tag, values, self._rules, self._page)
            if change is not None:
                self._change(tag.start(), tag.end(), [change])

    def _base(self, tag: re.Match[bytes]) -> None:
        href = attributes_of(tag).get(b"href")
        if href is not None and not self._based:
            self._based = True
            self._page = self._rules.based(href.strip(), self._page)
