"""Rewriting as a filter of responses: which ones, with which codings, and what when it goes wrong."""

from __future__ import annotations

from zope.interface import implementer

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IBodyFilter, IResponseFilter
from lbarray.rewrite.codings import READABLE, BrokenCoding, Coder, Decoder, coder, decoder
from lbarray.rewrite.html import HtmlRewriter, TagTooLong
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.validators import adjust
from lbarray.telemetry.counters import Counters

__all__ = ["RewriteFilter"]

_HTML = (b"text/html", b"application/xhtml+xml")
#: Charsets in which an octet below 0x80 may be part of another character: tags cannot be found by octets.
_NOT_ASCII = (b"utf-16", b"utf-32", b"utf-7", b"iso-2022", b"hz-gb", b"ucs-", b"csiso2022", b"unicode")
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")


@implementer(IResponseFilter)
class RewriteFilter:
    """Sends the readers of HTML pages to the CDN.

    :param rules: what is moved where.
    """

    def __init__(self, *, rules: CdnRules, counters: Counters) -> None:
        self._rules = rules
        self._counters = counters

    def prepare(self, request: RequestHead) -> None:
        """Ask for codings that we can read only (RFC 9110 §12.5.3)."""
        fields = request.fields
        for place, (name, value) in enumerate(fields):
            if len(name) == 15 and name.lower() == b"accept-encoding":
                fields[place] = (name, _readable(value))

    def open(self, request: RequestHead, response: ResponseHead) -> _Rewriting | None:
        kind = response.get(b"content-type")
        if kind is None or response.status in (204, 206, 304) or response.status < 200:
            return None
        media, _, parameters = kind.partition(b";")
        if media.strip().lower() not in _HTML:
            return None
        if any(b"no-transform" in value.lower() for value in response.get_all(b"cache-control")):
            self._counters.add("rewrite_left", "no_transform")
            return None
        if any(charset in parameters.lower() for charset in _NOT_ASCII):
            self._counters.add("rewrite_left", "charset")
            return None
        coding = (response.get(b"content-encoding") or b"").strip().lower()
        reader = decoder(coding) if coding not in (b"", b"identity") else None
        if reader is None and coding not in (b"", b"identity"):
            self._counters.add("rewrite_left", "coding")
            return None
        adjust(response)
        self._counters.add("rewrite_pages")
        rewriter = HtmlRewriter(self._rules, Page(request.host, request.path))
        if request.method == b"HEAD":
            return _Rewriting(rewriter, None, None, self._counters)
        return _Rewriting(rewriter, reader, coder(coding) if reader else None, self._counters)

    def status(self) -> dict[str, object]:
        """What the console shows."""
        counters = self._counters
        return {
            "pages": counters.get("rewrite_pages"),
            "urls": counters.get("rewrite_urls"),
            "left": counters.by_label("rewrite_left"),
            "bail_outs": counters.by_label("rewrite_bail_out"),
            "cdn": self._rules.origin.decode(),
        }


@implementer(IBodyFilter)
class _Rewriting:
    """One response."""

    def __init__(
        self, rewriter: HtmlRewriter, reader: Decoder | None, writer: Coder | None, counters: Counters
    ) -> None:
        self._rewriter: HtmlRewriter | None = rewriter
        self._reader = reader
        self._writer = writer
        self._counters = counters
        self._begun = False
        self._broken = False

    def feed(self, data: bytes) -> bytes:
        if self._broken:
            return b""
        if self._reader is None or self._writer is None:
            return self._rewritten(data)
        out = []
        try:
            for piece in self._reader.decode(data):
                out.append(self._writer.code(self._rewritten(piece)))
        except BrokenCoding:
            # What was readable has left; the rest has no meaning. The client sees an end that is too early.
            self._counters.add("rewrite_bail_out", "coding")
            self._broken = True
            return b"".join(out)
        # The back end has sent so much and perhaps waits with the rest: the client is to see it.
        out.append(self._writer.flush())
        return b"".join(out)

    def _rewritten(self, data: bytes) -> bytes:
        rewriter = self._rewriter
        if rewriter is None:
            return data
        if not self._begun and data:
            self._begun = True
            if data.startswith(_WIDE_BOMS):
                self._counters.add("rewrite_left", "charset")
                self._rewriter = None
                return data
        try:
            return rewriter.feed(data)
        except TagTooLong as stopped:
            self._counters.add("rewrite_bail_out", "tag_too_long")
            self._tally()
            given: bytes = stopped.args[0]
            return given + rewriter.finish()

    def finish(self) -> bytes:
        rest = self._rewriter.finish() if self._rewriter is not None else b""
        self._tally()
        if self._writer is None:
            return rest
        if self._broken:
            return b""
        return self._writer.code(rest) + self._writer.finish()

    def _tally(self) -> None:
        rewriter, self._rewriter = self._rewriter, None
        if rewriter is not None and rewriter.rewritten:
            self._counters.add("rewrite_urls", amount=rewriter.rewritten)


def _readable(accepted: bytes) -> bytes:
    """An Accept-Encoding without what we cannot read."""
    kept = []
    for item in accepted.split(b","):
        name = item.partition(b";")[0].strip().lower()
        if name in READABLE or name == b"identity":
            kept.append(item.strip())
    return b", ".join(kept) or b"identity"
