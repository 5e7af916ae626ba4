"""Rewriting as a filter of responses: which ones, with which codings, and what when it goes wrong."""

from __future__ import annotations

from twisted.logger import Logger
from zope.interface import implementer

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IBodyFilter, IResponseFilter
from lbarray.rewrite.charset import WIDE_MARKS, ascii_inside
from lbarray.rewrite.codings import READABLE, BrokenCoding, Coder, Decoder, coder, decoder
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.validators import adjust
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress

__all__ = ["RewriteFilter"]

_HTML = (b"text/html", b"application/xhtml+xml")
#: Coded octets that may come before any content: a gzip member's head has its file's name, a zstd skippable frame more.
_LONGEST_CODING_HEAD = 65536


@implementer(IResponseFilter)
class RewriteFilter:
    """Sends the readers of HTML pages to the CDN.

    :param rules: what is moved where.
    """

    def __init__(self, *, rules: CdnRules, counters: Counters) -> None:
        self._rules = rules
        self._counters = counters

    def prepare(self, request: RequestHead) -> None:
        """Ask for codings that we can read only (RFC 9110 §12.5.3), and for pages whole.

        A part of a page joined to one that was rewritten would be neither, so a reader who navigates gets
        no ranges (RFC 9110 §14.2: they are optional). Media players, who need them, do not ask for HTML.
        """
        fields = request.fields
        if request.get(b"range") is not None and b"text/html" in (request.get(b"accept") or b"").lower():
            request.remove(b"range")
            request.remove(b"if-range")
        for place, (name, value) in enumerate(fields):
            if len(name) == 15 and name.lower() == b"accept-encoding":
                fields[place] = (name, _readable(value))

    def open(self, request: RequestHead, response: ResponseHead, client: ClientAddress) -> _Rewriting | None:
        kind = response.get(b"content-type")
        if kind is None or response.status in (204, 206, 304) or response.status < 200:
            return None
        if kind.partition(b";")[0].strip().lower() not in _HTML:
            return None
        if any(b"no-transform" in value.lower() for value in response.get_all(b"cache-control")):
            self._counters.add("rewrite_left", "no_transform")
            return None
        if not ascii_inside(kind):
            self._counters.add("rewrite_left", "charset")
            return None
        coding = (response.get(b"content-encoding") or b"").strip().lower()
        reader = decoder(coding) if coding not in (b"", b"identity") else None
        if reader is None and coding not in (b"", b"identity"):
            self._counters.add("rewrite_left", "coding")
            return None
        if not self._rules.permitted_by(response.get_all(b"content-security-policy")):
            self._counters.add("rewrite_left", "csp")
            return None
        adjust(response)
        self._counters.add("rewrite_pages")
        rewriter = HtmlRewriter(self._rules, Page(request.host, request.path))
        page = (request.host + request.path).decode("latin-1")
        if request.method == b"HEAD":
            return _Rewriting(rewriter, None, None, self._counters, page)
        return _Rewriting(rewriter, reader, coder(coding) if reader else None, self._counters, page)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        counters = self._counters
        return {
            "pages": counters.get("rewrite_pages"),
            "urls": counters.get("rewrite_urls"),
            "tags_left": counters.by_label("rewrite_tags_left"),
            "left": counters.by_label("rewrite_left"),
            "bail_outs": counters.by_label("rewrite_bail_out"),
            "cdn": [origin.decode() for origin in self._rules.alive],
        }


@implementer(IBodyFilter)
class _Rewriting:
    """One response."""

    _log = Logger()
    waiting = None

    def __init__(
        self, rewriter: HtmlRewriter, reader: Decoder | None, writer: Coder | None, counters: Counters, page: str
    ) -> None:
        self._rewriter: HtmlRewriter | None = rewriter
        self._reader = reader
        self._writer = writer
        self._counters = counters
        self._page = page
        self._begun = False
        self._first = b""
        self._unread = b""
        self._decoded = False
        self._broken = False
        self._untouched = False

    def feed(self, data: bytes) -> bytes:
        if self._untouched:
            return data
        if self._broken:
            return b""
        if self._reader is None or self._writer is None:
            return self._rewritten(data)
        out = []
        try:
            for piece in self._reader.decode(data):
                if piece:
                    self._decoded = True
                    out.append(self._writer.code(self._rewritten(piece)))
        except BrokenCoding:
            self._counters.add("rewrite_bail_out", "coding")
            if not self._decoded:
                # Nothing has left: the client gets what the back end sent, and may make sense of it.
                self._untouched = True
                return self._unread + data
            # What was readable has left; the rest has no meaning. The client sees an end that is too early.
            self._broken = True
            return b"".join(out)
        if not self._decoded:
            self._unread += data
            if len(self._unread) > _LONGEST_CODING_HEAD:
                self._counters.add("rewrite_bail_out", "coding")
                self._untouched = True
                return self._unread
            return b""
        self._unread = b""
        # The back end has sent so much and perhaps waits with the rest: the client is to see it.
        out.append(self._writer.flush())
        return b"".join(out)

    def _rewritten(self, data: bytes) -> bytes:
        rewriter = self._rewriter
        if rewriter is None:
            return data
        if not self._begun:
            # One octet alone does not tell yet whether it begins a byte order mark.
            self._first += data
            if len(self._first) < 2:
                return b""
            data, self._first, self._begun = self._first, b"", True
            if data.startswith(WIDE_MARKS):
                self._counters.add("rewrite_left", "charset")
                self._rewriter = None
                return data
        try:
            return rewriter.feed(data)
        except Exception:
            # Our mistake, not the page's: nothing of this piece has left, so all of it goes as it came.
            self._counters.add("rewrite_bail_out", "error")
            self._log.failure("rewriting of {page} failed; it goes on as it came", page=self._page)
            self._tally()
            return rewriter.held + data

    def finish(self) -> bytes:
        rest = self._first
        if self._rewriter is not None:
            rest += self._rewriter.finish()
        self._tally()
        if self._untouched or self._writer is None or self._reader is None:
            return rest
        if self._broken or (not self._reader.ended and not self._decoded):
            return self._unread
        coded = self._writer.code(rest)
        if not self._reader.ended:
            # Cut short by the back end: no proper end of ours may hide that from the client.
            self._counters.add("rewrite_bail_out", "cut_short")
            return coded + self._writer.flush()
        return coded + self._writer.finish()

    def _tally(self) -> None:
        rewriter, self._rewriter = self._rewriter, None
        if rewriter is None:
            return
        for name, label, amount in (
            ("rewrite_urls", "", rewriter.rewritten),
            ("rewrite_tags_left", "tag_too_long", rewriter.long_tags),
            ("rewrite_tags_left", "integrity", rewriter.unsigned),
            ("rewrite_left", rewriter.left, 1 if rewriter.left else 0),
        ):
            if amount:
                self._counters.add(name, label, amount)


def _readable(accepted: bytes) -> bytes:
    """An Accept-Encoding without what we cannot read."""
    kept = []
    for item in accepted.split(b","):
        name = item.partition(b";")[0].strip().lower()
        if name in READABLE or name == b"identity":
            kept.append(item.strip())
    return b", ".join(kept) or b"identity"
