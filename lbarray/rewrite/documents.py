"""Documents other than HTML: style sheets and manifests, as the contents of responses."""

from __future__ import annotations

from lbarray.rewrite.css import CssRewriter
from lbarray.rewrite.json import LONGEST_JSON, manifest_changes
from lbarray.rewrite.rules import CdnRules, Page

__all__ = ["ManifestRewriter", "StyleSheetRewriter"]


class StyleSheetRewriter:
    """One style sheet; its ivars are those of :class:`lbarray.rewrite.html.HtmlRewriter`."""

    def __init__(self, rules: CdnRules, page: Page) -> None:
        self._css = CssRewriter(rules, page, self._change)
        self.held = b""
        self.rewritten = 0
        self.left = ""
        self.marks: list[tuple[int, int, int]] | None = None
        self._data = b""
        self._out: list[bytes] = []
        self._done = 0
        self._before = self._given = self._grown = 0

    def feed(self, data: bytes) -> bytes:
        """More of the sheet in, what may leave out."""
        return self._scan(self.held + data if self.held else data, last=False)

    def finish(self) -> bytes:
        """The rest."""
        return self._scan(self.held, last=True)

    def _scan(self, data: bytes, *, last: bool) -> bytes:
        self._data, self._out, self._done, self._grown = data, [], 0, 0
        end = self._css.scan(data, 0, len(data), last=last)
        self._data = b""
        self._before += end
        self._given += end + self._grown
        self.held = data[end:]
        if not self._done:
            return data[:end]
        self._out.append(data[self._done : end])
        return b"".join(self._out)

    def _change(self, first: int, last: int, text: bytes, start: int, end: int) -> None:
        self._out += (self._data[self._done : first], text)
        self._done = last
        self._grown += len(text) - (last - first)
        self.rewritten += 1
        if self.marks is not None:
            self.marks.append((self._before + start, self._before + end, self._given + end + self._grown))


class ManifestRewriter:
    """One web application manifest: small, so it is held until it is complete; a larger one leaves as it came."""

    def __init__(self, rules: CdnRules, page: Page) -> None:
        self._rules = rules
        self._page = page
        self._large = False
        self.held = b""
        self.rewritten = 0
        self.left = ""
        self.marks: list[tuple[int, int, int]] | None = None

    def feed(self, data: bytes) -> bytes:
        """Nothing leaves before the end, or before it is too large."""
        if self._large:
            return data
        self.held += data
        if len(self.held) <= LONGEST_JSON:
            return b""
        self._large = True
        self.left = "too_large"
        data, self.held = self.held, b""
        return data

    def finish(self) -> bytes:
        """All of it."""
        text = self.held
        out: list[bytes] = []
        done = 0
        for first, last, written in manifest_changes(text, self._rules, self._page):
            out += (text[done:first], written)
            done = last
            self.rewritten += 1
        if self.marks is not None:
            self.marks.append((0, len(text), len(text) + sum(map(len, out[1::2]))))
        self.held = b""
        return b"".join(out) + text[done:]
