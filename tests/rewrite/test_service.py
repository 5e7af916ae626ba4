"""Which responses are rewritten, with which fields and codings."""

from __future__ import annotations

import zlib
from typing import Any

import brotli
import zstandard
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IBodyFilter, IResponseFilter
from lbarray.rewrite.cdn import CdnFilter
from lbarray.rewrite.html import LONGEST_TAG
from lbarray.rewrite.pages import PageRule, PageRules
from lbarray.rewrite.rules import CdnRules
from lbarray.rewrite.service import Chained, RewriteService
from lbarray.telemetry.counters import Counters
from lbarray.testing import every_split
from lbarray.values import ClientAddress

BEFORE = b"<p>x</p><img src=/static/x>" * 20
AFTER = BEFORE.replace(b"/static", b"https://cdn.example/static")


def gzip(data: bytes) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    return stream.compress(data) + stream.flush()


def make_cdn(counters: Counters, **more: Any) -> CdnFilter:
    pages = more.pop("pages", PageRules())
    filter_options = {name: more.pop(name) for name in ("amend_csp", "manifests", "location") if name in more}
    rules = CdnRules(hosts=["cdn.example"], paths=["/static/"], **more)
    return CdnFilter(rules=rules, pages=pages, counters=counters, **filter_options)


class RewriteServiceTests(SynchronousTestCase):
    """Response by response."""

    def setUp(self) -> None:
        self.counters = Counters()
        self.clock = Clock()
        self.start()

    def start(self, chain: tuple[Chained, ...] = (), memo_octets: int = 0, **more: Any) -> None:
        self.cdn = make_cdn(self.counters, **more)
        self.filter = RewriteService(
            reactor=self.clock, counters=self.counters, cdn=self.cdn, chain=chain, memo_octets=memo_octets
        )

    def opened(
        self,
        *fields: tuple[bytes, bytes],
        status: int = 200,
        method: bytes = b"GET",
        target: bytes = b"/",
        asked: tuple[tuple[bytes, bytes], ...] = (),
        client: str = "192.0.2.1",
    ) -> tuple[Any, ResponseHead]:
        head = ResponseHead(status, list(fields) or [(b"Content-Type", b"text/html; charset=utf-8")])
        request = RequestHead(method, target, list(asked), host=b"site.example")
        self.filter.prepare(request)
        return self.filter.open(request, head, ClientAddress(client, 50000)), head

    def through(self, pieces: list[bytes], *fields: tuple[bytes, bytes]) -> bytes:
        body, _ = self.opened((b"Content-Type", b"text/html"), *fields)
        assert body is not None
        out: bytes = b""
        for piece in pieces:
            out += body.feed(piece)
            while body.waiting is not None:
                self.clock.advance(0)
                out += body.feed(b"")
        return out + bytes(body.finish())

    def test_provides(self) -> None:
        """Filter and body filter keep their interfaces."""
        verifyObject(IResponseFilter, self.filter)
        verifyObject(IBodyFilter, self.opened()[0])

    def test_only_pages(self) -> None:
        """Other types, partial content, answers without content: not my business, nothing changed."""
        link = (b"Link", b"</static/x>; rel=preload; as=style")
        for fields, status in (
            ([(b"Content-Type", b"image/png"), (b"ETag", b'"x"')], 200),
            ([(b"Content-Type", b"application/xhtml+xml"), (b"ETag", b'"x"')], 200),
            ([(b"Content-Type", b"text/html"), (b"ETag", b'"x"')], 206),
            ([(b"Content-Type", b"text/html"), (b"ETag", b'"x"')], 304),
            ([(b"ETag", b'"x"')], 200),
            ([(b"Content-Type", b"text/html"), (b"Cache-Control", b"public, No-Transform"), link], 200),
            ([(b"Content-Type", b"text/html"), (b"Content-Security-Policy", b"img-src 'self'")], 200),
            ([(b"Content-Type", b"text/html; charset=UTF-16LE")], 200),
            ([(b"Content-Type", b"text/html"), (b"Content-Encoding", b"exotic")], 200),
        ):
            body, head = self.opened(*fields, status=status)
            self.assertIsNone(body)
            self.assertEqual(head.fields, fields)

    def test_fields(self) -> None:
        """Lengths, digests and ranges go; a weak validator is derived from the back end's; the rest stays."""
        _, head = self.opened(
            (b"Content-Type", b"text/html"),
            (b"content-length", b"5"),
            (b"ETag", b'"x"'),
            (b"Accept-Ranges", b"bytes"),
            (b"Content-MD5", b"y"),
            (b"Vary", b"Cookie"),
        )
        tag = b'W/"x;lb=%b"' % self.cdn.rules.digest
        self.assertEqual(head.fields, [(b"Content-Type", b"text/html"), (b"ETag", tag), (b"Vary", b"Cookie")])

    def test_same_fields_for_head(self) -> None:
        """HEAD says what GET would."""
        body, head = self.opened((b"Content-Type", b"text/html"), (b"Content-Length", b"5"), method=b"HEAD")
        self.assertIsNone(head.get(b"content-length"))
        self.assertIsNone(body)

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
        self.patch(self.cdn.rules, "moved", None)
        rest = body.feed(b"/static/y>") + body.feed(b"<img src=/static/z>") + body.finish()
        self.assertEqual(first + rest, b"<img src=https://cdn.example/static/x><img src=/static/y><img src=/static/z>")
        self.assertEqual(self.counters.get("rewrite_bail_out", "cdn"), 1)
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

    def test_slices(self) -> None:
        """Of a large piece the first part leaves at once; the rest is worked on in turns."""
        page = BEFORE * 1000
        for fields, code in (((), bytes), (((b"Content-Encoding", b"gzip"),), gzip)):
            body, _ = self.opened((b"Content-Type", b"text/html"), *fields)
            out = body.feed(code(page))
            self.assertIsNotNone(body.waiting)
            self.assertGreater(len(out), 0)
            turns = 0
            while body.waiting is not None:
                turns += 1
                self.clock.advance(0)
                out += body.feed(b"")
            out += body.finish()
            self.assertGreater(turns, 5)
            self.assertEqual(out if not fields else zlib.decompress(out, 31), AFTER * 1000)

    def test_own_mistake_before_the_content(self) -> None:
        """When looking at a response fails, it goes on as it came."""
        self.patch(self.cdn.rules, "permitted_by", None)
        body, head = self.opened((b"Content-Type", b"text/html"), (b"Content-Length", b"5"))
        self.assertIsNone(body)
        self.assertEqual(head.get(b"content-length"), b"5")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    # Validators

    def test_not_modified(self) -> None:
        """Our tag comes back as the back end's own, and its 304 goes out with ours."""
        html = (b"Content-Type", b"text/html")
        _, head = self.opened(html, (b"ETag", b'"x"'))
        tag = head.get(b"etag") or b""
        request = RequestHead(b"GET", b"/", [(b"If-None-Match", tag + b', "y"')], host=b"site.example")
        self.filter.prepare(request)
        self.assertEqual(request.get(b"if-none-match"), b'"x", W/"x", "y"')
        answer = ResponseHead(304, [(b"ETag", b'"x"')])
        self.assertIsNone(self.filter.open(request, answer, ClientAddress("192.0.2.1", 50000)))
        self.assertEqual(answer.get(b"etag"), tag)

    def test_other_rules_are_another_page(self) -> None:
        """A tag from before a CDN host failed makes the back end send the page again."""
        fields = [(b"If-None-Match", b'W/"x;lb=01234567"'), (b"If-Modified-Since", b"Tue, 24 Nov 2026 20:00:00 GMT")]
        request = RequestHead(b"GET", b"/", fields, host=b"site.example")
        self.filter.prepare(request)
        self.assertEqual(request.fields, [])

    # Whose pages

    def test_pages(self) -> None:
        """By host and path, the most exact rule wins."""
        self.start(pages=PageRules([PageRule(path=b"/admin", rewrite=False), PageRule(path=b"/admin/help")]))
        for target, opens in ((b"/", True), (b"/admin/x", False), (b"/administrator", True), (b"/admin/help", True)):
            self.assertEqual(self.opened(target=target)[0] is not None, opens, target)
        self.assertEqual(self.counters.get("rewrite_left", "excluded"), 1)

    def test_roll_out(self) -> None:
        """About the share of the clients that was asked for, and always the same ones."""
        self.start(pages=PageRules(share=0.25))
        clients = [f"192.0.2.{number}" for number in range(200)]
        first = [self.opened(client=client)[0] is not None for client in clients]
        self.assertEqual(first, [self.opened(client=client)[0] is not None for client in clients])
        self.assertTrue(25 < sum(first) < 75, sum(first))

    def test_cookie(self) -> None:
        """Who is logged in gets the pages as they are."""
        self.start(pages=PageRules(skip_cookies=[b"session"]))
        self.assertIsNone(self.opened(asked=((b"Cookie", b"a=b; session=1"),))[0])
        body, head = self.opened(asked=((b"Cookie", b"a=session"),))
        self.assertIsNotNone(body)
        self.assertEqual(head.get(b"vary"), b"Cookie")

    def test_policy_amended(self) -> None:
        """By choice a policy is widened for the CDN, kind by kind, and not for scripts that trust no host."""
        self.start(amend_csp=True)
        html = (b"Content-Type", b"text/html")
        body, head = self.opened(html, (b"Content-Security-Policy", b"default-src 'self'; img-src 'none'"))
        self.assertIsNotNone(body)
        policy = head.get(b"content-security-policy") or b""
        self.assertIn(b"img-src https://cdn.example", policy)
        self.assertIn(b"script-src 'self' https://cdn.example", policy)
        self.assertIn(b"default-src 'self';", policy)
        strict = b"script-src 'strict-dynamic' 'nonce-x'"
        body, head = self.opened(html, (b"Content-Security-Policy", strict))
        self.assertIsNone(body)
        self.assertEqual(head.get(b"content-security-policy"), strict)

    # Fields and other documents

    def test_link_and_location(self) -> None:
        """Preloads in Link fields, and redirects where that is wanted, lead to the CDN; other links stay."""
        self.start(location=True)
        link = b'</static/a.css>; rel=preload; as=style, </next>; rel="next", </static/d>; rel=preload; as=fetch'
        _, head = self.opened((b"Content-Type", b"text/html"), (b"Link", link))
        self.assertEqual(head.get(b"link"), link.replace(b"</static/a", b"<https://cdn.example/static/a"))
        _, head = self.opened((b"Location", b"/static/x"), status=302)
        self.assertEqual(head.get(b"location"), b"https://cdn.example/static/x")

    def test_style_sheet_file(self) -> None:
        """A style sheet's relative URLs start at the style sheet."""
        body, _ = self.opened((b"Content-Type", b"text/css"), target=b"/static/css/a.css")
        sheet = b"@import 'b.css'; a { background: url(../i.png) }"
        wanted = (
            b"@import 'https://cdn.example/static/css/b.css'; a { background: url(https://cdn.example/static/i.png) }"
        )
        self.assertEqual(body.feed(sheet) + body.finish(), wanted)

    def test_manifest(self) -> None:
        """Icons of a manifest, where that is wanted; its start stays with the site."""
        self.start(manifests=True)
        body, _ = self.opened((b"Content-Type", b"application/manifest+json"))
        text = b'{"start_url": "/static/", "icons": [{"src" : "/static/i.png"}]}'
        self.assertEqual(body.feed(text) + body.finish(), text.replace(b'"/static/i', b'"https://cdn.example/static/i'))

    def test_learnt_types(self) -> None:
        """With ``types`` a path moves once a response has told that it is of such a type."""
        self.start(types=["image/*"])
        self.assertEqual(self.through([BEFORE]), BEFORE)
        self.opened((b"Content-Type", b"image/png"), (b"Content-Length", b"5"), target=b"/static/x")
        self.assertEqual(self.through([BEFORE]), AFTER)
        self.opened((b"Content-Type", b"application/pdf"), target=b"/static/x")
        self.assertEqual(self.through([BEFORE]), BEFORE)

    # Memo

    def test_memo(self) -> None:
        """A page that comes again, however it is cut, gives the same; another page gives its own."""
        for fields, code in (((), bytes), (((b"Content-Encoding", b"gzip"),), gzip)):
            self.start(memo_octets=1 << 24)
            large = BEFORE * 400
            for page in (large, large, large + b"x", large[:-500] + b"y" * 3000):
                out = self.through([code(page)], *fields)
                wanted = page.replace(b"=/static", b"=https://cdn.example/static")
                self.assertEqual(out if not fields else zlib.decompress(out, 31), wanted)
            self.through([code(BEFORE)], *fields)
            for pieces in list(every_split(code(BEFORE)))[::17]:
                out = self.through(pieces, *fields)
                self.assertEqual(out if not fields else zlib.decompress(out, 31), AFTER)
            other = code(BEFORE.replace(b"<p>x", b"<p>y") + b"z")
            out = self.through([other], *fields)
            self.assertEqual(out if not fields else zlib.decompress(out, 31), AFTER.replace(b"<p>x", b"<p>y") + b"z")
            out = self.through([code(BEFORE)], *fields)
            self.assertEqual(out if not fields else zlib.decompress(out, 31), AFTER)
            self.assertGreater(self.filter.status()["memo"]["hits"], 0)  # type: ignore[index]

    def test_memo_forgets(self) -> None:
        """With other rules, or without a host that lives, what was remembered does not count."""
        self.start(memo_octets=1 << 20)
        self.through([BEFORE])
        self.cdn.rules.set_alive([])
        self.assertIsNone(self.opened()[0])
        self.assertEqual(self.filter.status()["cdn_failing"], ["https://cdn.example"])
        self.cdn.rules.set_alive(["cdn.example"])
        self.assertEqual(self.through([BEFORE]), AFTER)
