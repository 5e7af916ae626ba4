"""What becomes of a URL: which content moves, and where to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.json import import_map_changes
from lbarray.rewrite.references import escaped, reference_spans, unescaped
from lbarray.rewrite.rules import CdnRules, Page

PAGE = Page(b"site.example", b"/a/b.html")


class SelectionTests(SynchronousTestCase):
    """Which paths."""

    def moved(self, rules: CdnRules, *urls: bytes) -> list[bool]:
        return [rules.moved(url, PAGE) is not None for url in urls]

    def test_extensions(self) -> None:
        """Of the last segment, whatever its case, whatever the query."""
        rules = CdnRules(hosts=["c"], paths=["/"], extensions=["png", ".css"])
        urls = (b"/x.png", b"/x.PNG?a=b.js", b"/x.css#y", b"/x.js", b"/x.png/y", b"/png")
        self.assertEqual(self.moved(rules, *urls), [True, True, True, False, False, False])

    def test_globs(self) -> None:
        """One star stays in its segment, two do not; ``exclude`` wins."""
        rules = CdnRules(hosts=["c"], globs=["/m/*.jpg", "/n/**/x?.gif"], exclude=["/m/secret*"])
        urls = (b"/m/a.jpg", b"/m/a/b.jpg", b"/n/a/b/x1.gif", b"/n/a/x.gif", b"/m/secret1.jpg", b"/m/a.jpg.exe")
        self.assertEqual(self.moved(rules, *urls), [True, False, True, False, False, False])

    def test_sizes(self) -> None:
        """Learnt, within the limits; unknown ones stay."""
        rules = CdnRules(hosts=["c"], paths=["/"], min_size=10, max_size=100)
        for path, size in ((b"/a", 10), (b"/b", 9), (b"/c", 101), (b"/d", -1)):
            rules.learn(path, b"image/png", size)
        self.assertEqual(self.moved(rules, b"/a", b"/b", b"/c", b"/d", b"/e"), [True, False, False, False, False])


class HostTests(SynchronousTestCase):
    """Which host, and how it is written."""

    def test_sharding(self) -> None:
        """Each path has one host, whatever the order of the list; a host that fails moves its own paths only."""
        one, two = (CdnRules(hosts=hosts, paths=["/"]) for hosts in (["a", "b", "c"], ["c", "a", "b"]))
        urls = [b"/%d" % number for number in range(300)]
        before = [one.moved(url, PAGE) for url in urls]
        self.assertEqual(before, [two.moved(url, PAGE) for url in urls])
        counts = [sum(host in (url or b"") for url in before) for host in (b"//a/", b"//b/", b"//c/")]
        self.assertTrue(all(60 < count < 140 for count in counts), counts)
        one.set_alive(["a", "c"])
        after = [one.moved(url, PAGE) for url in urls]
        self.assertTrue(all(new == old for old, new in zip(before, after, strict=True) if b"//b/" not in (old or b"")))
        self.assertFalse(any(b"//b/" in (new or b"") for new in after))

    def test_nobody_lives(self) -> None:
        """Then everything stays; and moves again when a host is back."""
        rules = CdnRules(hosts=["a"], paths=["/"])
        digest = rules.digest
        rules.set_alive([])
        self.assertIsNone(rules.moved(b"/x", PAGE))
        self.assertNotEqual(rules.digest, digest)
        rules.set_alive(["a"])
        self.assertEqual(rules.moved(b"/x", PAGE), b"https://a/x")
        self.assertEqual(rules.digest, digest)

    def test_relative_scheme(self) -> None:
        """The page's own scheme, by choice."""
        self.assertEqual(CdnRules(hosts=["a:81"], scheme="", paths=["/"]).moved(b"/x", PAGE), b"//a:81/x")

    def test_version(self) -> None:
        """Added to the query, before the fragment; in a page as a reference."""
        rules = CdnRules(hosts=["a"], paths=["/"], version="7")
        self.assertEqual(rules.moved(b"/x#f", PAGE), b"https://a/x?v=7#f")
        self.assertEqual(rules.moved(b"/x?q=1", PAGE), b"https://a/x?q=1&v=7")
        rewriter = HtmlRewriter(rules, PAGE)
        self.assertEqual(rewriter.feed(b"<img src=/x?q=1>"), b"<img src=https://a/x?q=1&amp;v=7>")


class PlacesByChoiceTests(SynchronousTestCase):
    """What is rewritten only when it is asked for."""

    def rewrite(self, html: bytes, **more: object) -> bytes:
        rules = CdnRules(hosts=["cdn.example"], paths=["/static/"], own_hosts=["shop.example"], **more)  # type: ignore[arg-type]
        rewriter = HtmlRewriter(rules, Page(b"site.example", b"/"))
        return rewriter.feed(html) + rewriter.finish()

    def check(self, marked: bytes, **more: object) -> None:
        before = marked.replace(b"%", b"")
        self.assertEqual(self.rewrite(before), before)
        self.assertEqual(self.rewrite(before, **more), marked.replace(b"%", b"https://cdn.example"))

    def test_embeds(self) -> None:
        """Plug-in content."""
        self.check(b"<object data='%/static/x'></object><embed src=%/static/y>", embeds=True)

    def test_metas(self) -> None:
        """Pictures for those who link here, and pages to go to."""
        self.check(b'<meta property="og:image" content="%/static/x">', metas=True)
        self.check(b"<meta http-equiv=refresh content='5; URL=%/static/x'>", metas=True)
        self.check(b"<meta http-equiv=refresh content=\"0;url='%/static/x'\">", metas=True)
        self.check(b'<meta name="description" content="/static/x">', metas=True)

    def test_import_maps(self) -> None:
        """Addresses and what is looked up by address; other scripts and broken maps stay."""
        self.check(
            b'<script type="importmap">{"imports": {"a": "%/static/a.js", "%/static/b.js": "%/static/c.js"}}</script>',
            import_maps=True,
        )
        self.check(b'<script type="importmap">{"a": "/static/x",}</script>', import_maps=True)
        self.check(b'<script>var a = {"a": "/static/x"}</script>', import_maps=True)
        self.assertEqual(
            list(import_map_changes(b'{"\\/static\\/x": 1}', CdnRules(hosts=["a"], paths=["/static/"]), PAGE)),
            [(2, 2, b"https://a")],
        )

    def test_attributes(self) -> None:
        """The site's own, on any element or on one."""
        self.check(b"<div data-bg='%/static/x'><a href=/static/y>", attributes=["data-bg"])
        self.check(b"<a href=%/static/x><area href=/static/y>", attributes=["a@href"])


class NoscriptTests(SynchronousTestCase):
    """Content that is text for some browsers and markup for others."""

    def rewrite(self, html: bytes) -> tuple[bytes, str]:
        rewriter = HtmlRewriter(CdnRules(hosts=["c"], paths=["/static/"]), PAGE)
        return rewriter.feed(html) + rewriter.finish(), rewriter.left

    def test_whole(self) -> None:
        """Markup that is complete within is rewritten."""
        html = b"<noscript><img src=%/static/x><style>a{b:url(%/static/y)}</style></noscript><img src=%/static/z>"
        self.assertEqual(self.rewrite(html.replace(b"%", b"")), (html.replace(b"%", b"https://c"), ""))

    def test_not_whole(self) -> None:
        """What reaches over its end means one thing here and another there: nothing behind it is touched."""
        for inside in (b"<!--", b"<p title='", b"<style>", b"<svg>"):
            html = b"<noscript>" + inside + b"</noscript><img src=/static/x>"
            self.assertEqual(self.rewrite(html), (html, "ambiguous"), inside)


class ReferenceTests(SynchronousTestCase):
    """Character references in attributes."""

    def test_as_browsers_read_them(self) -> None:
        """A name without semicolon counts only where no letter, digit or ``=`` follows (WHATWG HTML §13.2.5.73)."""
        for written, meant in (
            (b"/x?a=1&amp;b=2", b"/x?a=1&b=2"),
            (b"/x?a&copy=1", b"/x?a&copy=1"),
            (b"/x?a&copy=&b", b"/x?a&copy=&b"),
            (b"/x?a&copy", b"/x?a\xa9"),
            (b"/x?a&copyx", b"/x?a&copyx"),
            (b"&#x2F;x&#47", b"/x/"),
            (b"&nosuch;", b"&nosuch;"),
        ):
            self.assertEqual(unescaped(written), meant)

    def test_places(self) -> None:
        """Each octet's place in what was written."""
        plain, places = reference_spans(b"a&quot;b")
        self.assertEqual((plain, places), (b'a"b', [0, 1, 7, 8]))

    def test_escaped(self) -> None:
        """Between quotation marks of either kind."""
        self.assertEqual(unescaped(escaped(b"a\"b'c&amp;")), b"a\"b'c&amp;")
