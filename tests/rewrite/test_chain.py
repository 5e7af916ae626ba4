"""Which responses are rewritten, with which fields and codings."""

from __future__ import annotations

import zlib
from typing import Any

import brotli
import zstandard
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IBodyFilter, IResponseFilter
from lbarray.rewrite.chain import RewriteFilter
from lbarray.rewrite.html import LONGEST_TAG
from lbarray.rewrite.rules import CdnRules
from lbarray.telemetry.counters import Counters
from lbarray.testing import every_split
from lbarray.values import ClientAddress

BEFORE = b"<p>x</p><img src=/static/x>" * 20
AFTER = BEFORE.replace(b"/static", b"https://cdn.example/static")


def gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    return stream.compress(data) + stream.flush()


class RewriteFilterTests(SynchronousTestCase):
    """Response by response."""

    def setUp(self) -> None:
        self.counters = Counters()
        rules = CdnRules(hosts=["cdn.example"], scheme="https", paths=["/static/"])
        self.filter = RewriteFilter(rules=rules, counters=self.counters)

    def opened(
        self, *fields: tuple[bytes, bytes], status: int = 200, method: bytes = b"GET"
    ) -> tuple[Any, ResponseHead]:
        head = ResponseHead(status, list(fields) or [(b"Content-Type", b"text/html; charset=utf-8")])
        request = RequestHead(method, b"/", [], host=b"site.example")
        return self.filter.open(request, head, ClientAddress("192.0.2.1", 50000)), head

    def through(self, pieces: list[bytes], *fields: tuple[bytes, bytes]) -> bytes:
        body, _ = self.opened((b"Content-Type", b"text/html"), *fields)
        assert body is not None
        out: bytes = b"".join(body.feed(piece) for piece in pieces) + body.finish()
        return out

    def test_provides(self) -> None:
        """Filter and body filter keep their interfaces."""
        verifyObject(IResponseFilter, self.filter)
        verifyObject(IBodyFilter, self.opened()[0])

    def test_only_pages(self) -> None:
        """Other types, partial content, answers without content: not my business, nothing changed."""
        for fields, status in (
            ([(b"Content-Type", b"text/css"), (b"ETag", b'"x"')], 200),
            ([(b"Content-Type", b"text/html"), (b"ETag", b'"x"')], 206),
            ([(b"Content-Type", b"text/html"), (b"ETag", b'"x"')], 304),
            ([(b"ETag", b'"x"')], 200),
            ([(b"Content-Type", b"text/html"), (b"Cache-Control", b"public, No-Transform")], 200),
            ([(b"Content-Type", b"text/html"), (b"Content-Security-Policy", b"img-src 'self'")], 200),
            ([(b"Content-Type", b"text/html; charset=UTF-16LE")], 200),
            ([(b"Content-Type", b"text/html"), (b"Content-Encoding", b"exotic")], 200),
        ):
            body, head = self.opened(*fields, status=status)
            self.assertIsNone(body)
            self.assertEqual(head.fields, fields)

    def test_fields(self) -> None:
        """Lengths, digests and ranges go; a strong validator becomes a weak one; the rest stays."""
        _, head = self.opened(
            (b"Content-Type", b"text/html"),
            (b"content-length", b"5"),
            (b"ETag", b'"x"'),
            (b"Accept-Ranges", b"bytes"),
            (b"Content-MD5", b"y"),
            (b"Vary", b"Cookie"),
        )
        self.assertEqual(head.fields, [(b"Content-Type", b"text/html"), (b"ETag", b'W/"x"'), (b"Vary", b"Cookie")])

    def test_same_fields_for_head(self) -> None:
        """HEAD says what GET would, and has no content to finish."""
        body, head = self.opened((b"Content-Type", b"text/html"), (b"Content-Length", b"5"), method=b"HEAD")
        self.assertIsNone(head.get(b"content-length"))
        self.assertEqual(body.finish(), b"")

    def test_plain(self) -> None:
        """An uncoded page, however it is cut."""
        for pieces in list(every_split(BEFORE))[::25]:
            self.assertEqual(self.through(pieces), AFTER)

    def test_codings(self) -> None:
        """Coded pages are read, changed and coded again in the same way."""
        for name, code, decode in (
            (b"gzip", gzip, lambda data: zlib.decompress(data, 31)),
            (b"deflate", zlib.compress, zlib.decompress),
            (b"br", brotli.compress, brotli.decompress),
            (b"zstd", zstandard.compress, lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)),
        ):
            coded = code(BEFORE)
            for size in (1, 7, len(coded)):
                pieces = [coded[at : at + size] for at in range(0, len(coded), size)]
                self.assertEqual(decode(self.through(pieces, (b"Content-Encoding", name))), AFTER, name)

    def test_streams(self) -> None:
        """What the back end has sent can be read by the client before the rest comes."""
        body, _ = self.opened((b"Content-Type", b"text/html"), (b"Content-Encoding", b"gzip"))
        stream = zlib.compressobj(6, zlib.DEFLATED, 31)
        first = stream.compress(BEFORE) + stream.flush(zlib.Z_SYNC_FLUSH)
        out = body.feed(first)
        self.assertEqual(zlib.decompressobj(31).decompress(out), AFTER)

    def test_expands_in_pieces(self) -> None:
        """A page that expands a thousandfold comes out whole."""
        coded = gzip(b"<p>" + b" " * 10_000_000)
        out = self.through([coded], (b"Content-Encoding", b"gzip"))
        self.assertEqual(len(zlib.decompress(out, 31)), 10_000_003)

    def test_broken_coding(self) -> None:
        """What could be read leaves; the break is counted; nothing is raised."""
        coded = gzip(BEFORE)
        self.through([coded[:40], b"garbage" * 5], (b"Content-Encoding", b"gzip"))
        self.assertEqual(self.counters.get("rewrite_bail_out", "coding"), 1)

    def test_bail_out(self) -> None:
        """Beyond a name without an end everything passes as it came, once."""
        endless = b"<img src=/static/x><img " + b"y" * (LONGEST_TAG + 5)
        out = self.through([endless, b"><img src=/static/z>"])
        self.assertEqual(out, endless.replace(b"/static", b"https://cdn.example/static") + b"><img src=/static/z>")
        self.assertEqual(self.counters.get("rewrite_left", "tag_too_long"), 1)
        self.assertEqual(self.counters.get("rewrite_urls"), 1)

    def test_counts_what_it_left(self) -> None:
        """Long tags, unsigned scripts and pages that forbid the rest of themselves can be seen."""
        image = b"<img src='data:" + b"y" * LONGEST_TAG + b"'>"
        script = b"<script src=/static/x integrity=sha256-x></script>"
        meta = b"<meta http-equiv=Content-Security-Policy content='img-src &#39;self&#39;'>"
        page = image + script + meta + b"<img src=/static/z>"
        self.assertEqual(self.through([page]), page)
        self.assertEqual(self.counters.by_label("rewrite_tags_left"), {"integrity": 1, "tag_too_long": 1})
        self.assertEqual(self.counters.by_label("rewrite_left"), {"csp": 1})

    def test_wide_characters(self) -> None:
        """A byte order mark of UTF-16 overrules what the fields said."""
        page = "\ufeff<img src=/static/x>".encode("utf-16-le")
        self.assertEqual(self.through([page]), page)

    def test_asks_for_what_it_can_read(self) -> None:
        """Codings that we lack are not asked for; without any left, none is."""
        for asked, wanted in (
            (b"gzip, br;q=0.5, exotic", b"gzip, br;q=0.5"),
            (b"exotic", b"identity"),
            (b"*", b"identity"),
        ):
            request = RequestHead(b"GET", b"/", [(b"Accept-Encoding", asked)])
            self.filter.prepare(request)
            self.assertEqual(request.get(b"accept-encoding"), wanted)

    def test_status(self) -> None:
        """Pages and URLs are counted."""
        self.through([BEFORE])
        self.assertEqual((self.filter.status()["pages"], self.filter.status()["urls"]), (1, 20))

    def test_range_of_a_page(self) -> None:
        """Who navigates gets the page whole; who plays a film gets his range."""
        for accept, kept in ((b"text/html,*/*;q=0.8", None), (b"*/*", b"bytes=5-")):
            request = RequestHead(b"GET", b"/", [(b"Range", b"bytes=5-"), (b"Accept", accept)])
            self.filter.prepare(request)
            self.assertEqual(request.get(b"range"), kept)

    def test_mark_in_pieces(self) -> None:
        """The byte order mark is seen however it is cut; a page of one octet comes out."""
        page = "\ufeff<img src=/static/x>".encode("utf-16-le")
        self.assertEqual(self.through([page[:1], page[1:]]), page)
        self.assertEqual(self.through([b"x"]), b"x")

    def test_own_mistake(self) -> None:
        """When the rewriter itself fails, the page goes on as it came, once, and the log names it."""
        body, _ = self.opened((b"Content-Type", b"text/html"))
        first = body.feed(b"<img src=/static/x><img src=")
        self.patch(self.filter._rules, "moved", None)
        rest = body.feed(b"/static/y>") + body.feed(b"<img src=/static/z>") + body.finish()
        self.assertEqual(first + rest, b"<img src=https://cdn.example/static/x><img src=/static/y><img src=/static/z>")
        self.assertEqual(self.counters.get("rewrite_bail_out", "error"), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_wrong_coding(self) -> None:
        """A page that is not coded as its field says passes as it came."""
        for name in (b"gzip", b"br", b"zstd"):
            for pieces in ([BEFORE], [BEFORE[:1], BEFORE[1:]]):
                self.assertEqual(self.through(pieces, (b"Content-Encoding", name)), BEFORE, name)

    def test_cut_short(self) -> None:
        """A coded page that ends too early does not get a proper end from us."""
        out = self.through([gzip(BEFORE + b"<p>" * 5000)[:-9]], (b"Content-Encoding", b"gzip"))
        stream = zlib.decompressobj(31)
        self.assertTrue(stream.decompress(out).startswith(AFTER))
        self.assertFalse(stream.eof)
        self.assertEqual(self.counters.get("rewrite_bail_out", "cut_short"), 1)

    def test_empty(self) -> None:
        """No content stays no content, also where a coding was promised."""
        for fields in ((), ((b"Content-Encoding", b"gzip"),)):
            self.assertEqual(self.through([], *fields), b"")
