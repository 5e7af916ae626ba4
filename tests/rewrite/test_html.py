"""Pages that send their readers to the CDN, and every other octet as it was."""

from __future__ import annotations

import re
from typing import Any

from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.html import LONGEST_TAG, HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.srcset import candidate_urls
from lbarray.rewrite.urls import without_dots
from lbarray.testing import every_split

RULES = CdnRules(hosts=["cdn.example"], scheme="https", paths=["/static/"], own_hosts=["shop.example"])
CDN = b"https://cdn.example"


def rewrite(html: bytes, pieces: list[bytes] | None = None, path: bytes = b"/a/page.html") -> bytes:
    rewriter = HtmlRewriter(RULES, Page(b"site.example", path))
    return b"".join(rewriter.feed(piece) for piece in pieces or [html]) + rewriter.finish()


class HtmlTests(SynchronousTestCase):
    """One page in, one page out."""

    def check(self, before: bytes, after: bytes) -> None:
        for pieces in every_split(before):
            self.assertEqual(rewrite(before, pieces), after, pieces)

    def same(self, html: bytes) -> None:
        self.check(html, html)

    def test_places(self) -> None:
        """Each element and attribute that loads something."""
        for before in (
            b'<img src="%/static/x">',
            b"<script src='%/static/x'></script>",
            b'<link rel="stylesheet" href="%/static/x">',
            b'<link href=%/static/x rel="shortcut ICON">',
            b"<source src=%/static/x>",
            b'<img srcset="%/static/x 1x, %/static/y 2x">',
            b'<source srcset="%/static/x">',
            b'<link rel=preload imagesrcset="%/static/x 2x" href="%/static/y">',
            b'<video poster="%/static/x" src="%/static/y"></video>',
            b"<IMG\n\tALT=x SRC = %/static/x\n/>",
        ):
            self.check(before.replace(b"%", b""), before.replace(b"%", CDN))

    def test_other_places(self) -> None:
        """Links that people follow, forms, and links that name pages stay."""
        for html in (
            b'<a href="/static/x">',
            b'<form action="/static/x">',
            b'<link rel="canonical" href="/static/x">',
            b'<link href="/static/x">',
            b'<img data-src="/static/x" alt="/static/x">',
            b"<imgx src=/static/x>",
            b"<iframe src=/static/x></iframe>",
        ):
            self.same(html)

    def test_no_markup(self) -> None:
        """Comments, declarations, scripts, styles, other tags' values, end tags: nothing in them is a tag."""
        tag = b"<img src=/static/x>"
        for around in (
            b"<!-- % -->",
            b"<!--%--!>",
            b"<script>'%'</script>",
            b"<SCRIPT><!-- <script>%</script>% --></SCRIPT>",
            b"<style>%</style >",
            b"<textarea>%</textarea\n>",
            b"<title>%</title>",
            b"<p title='%'>",
            b'<p title="%" class=x>',
            b"<xmp>%</xmp>",
            b"<noembed>%</noembed>",
            b"<plaintext>%",
        ):
            html = around.replace(b"%", tag)
            self.check(html + (b"" if b"plain" in html else tag), html + (b"" if b"plain" in html else rewrite(tag)))

    def test_edges_of_comments(self) -> None:
        """Where a comment ends by the tokenizer's rules (WHATWG HTML §13.2.5.43-51)."""
        tag = b"<img src=/static/x>"
        for comment in (
            b"<!-->",
            b"<!--->",
            b"<!---->",
            b"<!-- - -- -->",
            b"<!--a--!>",
            b"<!x>",
            b"<?x>",
            b"</>",
            b"</ x>",
        ):
            self.check(comment + tag, comment + rewrite(tag))
        for comment in (b"<!---", b"<!-- ->", b"<!-- --", b"<!-- -- >"):
            self.same(comment + tag)

    def test_odd_but_real(self) -> None:
        """Quotes in odd places, stray less-than signs, no spaces between attributes, doubled attributes."""
        for before, after in (
            (b"<p it's><img src=/static/x>", b"<p it's><img src=%/static/x>"),
            (b"a < b <3 <img src=/static/x>", b"a < b <3 <img src=%/static/x>"),
            (b'<img alt="x"src="/static/x">', b'<img alt="x"src="%/static/x">'),
            (b"<img/src=/static/x>", b"<img/src=%/static/x>"),
            (b"<img src=/static/x src=/static/y>", b"<img src=%/static/x src=/static/y>"),
            (b"<img src= alt=x>", b"<img src= alt=x>"),
            (b"<img src alt>", b"<img src alt>"),
            (b"<img =x src=/static/x>", b"<img =x src=%/static/x>"),
            (b"<img src=' /static/x\n'>", b"<img src=' %/static/x\n'>"),
            (b"<img src='/static/x", b"<img src='/static/x"),
        ):
            self.check(before, after.replace(b"%", CDN))

    def test_character_references(self) -> None:
        """They are understood, and where only the front changes they stay as they were written."""
        self.check(b'<img src="/static/x?a=1&amp;b=2&c">', b'<img src="' + CDN + b'/static/x?a=1&amp;b=2&c">')
        self.check(b'<img src="&#47;static/x">', b'<img src="' + CDN + b'&#47;static/x">')

    def test_base(self) -> None:
        """The first <base href> moves where relative URLs start."""
        for base, wanted in (
            (b'<base href="/static/">', b"/static/x"),
            (b"<base href=https://shop.example/static/y/>", b"/static/y/x"),
            (b'<base href="/static/"><base href="/other/">', b"/static/x"),
        ):
            self.check(base + b"<img src=x>", base + b"<img src=" + CDN + wanted + b">")
        self.same(b"<base href=https://elsewhere.example/><img src=/static/x><img src=x>")
        self.same(b'<base href="/other/"><img src=x>')

    def test_not_utf8(self) -> None:
        """Octets that are no UTF-8 are octets."""
        self.check(b"\xff\xfe\x80<img src=/static/x>\xe4", b"\xff\xfe\x80<img src=" + CDN + b"/static/x>\xe4")

    def test_counts(self) -> None:
        """How many URLs were changed."""
        rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"))
        rewriter.feed(b"<img src=/static/x srcset='/static/y 1x, /z 2x'><img src=/z>")
        self.assertEqual(rewriter.rewritten, 2)

    def test_endless_name(self) -> None:
        """A name without an end is not held for ever; nothing of it is lost."""
        rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"))
        given = rewriter.feed(b"<img src=/static/x><img ")
        whole = given + rewriter.feed(b"x" * (LONGEST_TAG + 1)) + rewriter.finish()
        self.assertEqual(rewriter.left, "tag_too_long")
        self.assertEqual(whole, rewrite(b"<img src=/static/x>") + b"<img " + b"x" * (LONGEST_TAG + 1))

    def test_long_tags(self) -> None:
        """A tag too long to be held goes by, and what follows it is rewritten; text in it is no tag."""
        tag, long = b"<img src=/static/x>", b"y" * LONGEST_TAG
        for start, inside in (
            (b"<img src=/static/x alt='%' title= \">\" a=b / c  = 'd>'>", b""),
            (b'<p\ntitle="%"' + tag + b"'", b""),
            (b"<script data-x='%'>", tag + b"</script>"),
            (b"</p class='%>" + tag + b"'>", b""),
            (b"<!DOCTYPE " + long + b">", b""),
            (b"<?" + long + b">", b""),
            (b"</ " + long + b">", b""),
        ):
            html = start.replace(b"%", long) + inside
            for size in (len(html), 999, 7):
                pieces = [html[at : at + size] for at in range(0, len(html), size)]
                if size == 7:  # as a whole up to what is too long to be held, then in small pieces
                    pieces = [
                        html[: LONGEST_TAG + 30],
                        *(html[at : at + 1] for at in range(LONGEST_TAG + 30, len(html))),
                    ]
                self.assertEqual(rewrite(html, [*pieces, tag]), html + rewrite(tag), start[:12])

    def test_foreign(self) -> None:
        """In SVG and MathML "/>" ends an element, and CDATA is text (WHATWG HTML §13.2.6.5)."""
        tag = b"<img src=/static/x>"
        for start in (
            b"<svg><title/></svg>",
            b"<svg viewBox='0 0 1 1'><style /></svg>",
            b"<SVG><![CDATA[ <img src=/static/y> ]] ]]></SVG>",
            b"<svg/><![CDATA[>",
            b"<svg></svg ><![CDATA[ x>",
        ):
            self.check(start + tag, start + rewrite(tag))
        self.check(b"<svg><title>" + tag, b"<svg><title>" + rewrite(tag))  # a title of SVG holds HTML
        self.same(b"<title/>" + tag)
        self.check(b"<svg><image xlink:href='/static/x'/>", b"<svg><image xlink:href='" + CDN + b"/static/x'/>")
        self.same(b"<svg><use href='/static/x.svg#y'/></svg>")

    def test_integrity(self) -> None:
        """A script with a digest and without crossorigin would not run from elsewhere, so it stays, or gets it."""
        bare = b"<script integrity=sha256-x src=/static/x></script>"
        ready = b"<script integrity=sha256-x crossorigin src=%/static/x></script>"
        self.same(bare)
        self.check(ready.replace(b"%", b""), ready.replace(b"%", CDN))
        self.check(b"<script integrity='' src=/static/x>", b"<script integrity='' src=" + CDN + b"/static/x>")
        rules = CdnRules(hosts=["cdn.example"], scheme="https", paths=["/static/"], add_crossorigin=True)
        rewriter = HtmlRewriter(rules, Page(b"site.example", b"/"))
        wanted = b'<script crossorigin="anonymous" integrity=sha256-x src=' + CDN + b"/static/x></script>"
        self.assertEqual(rewriter.feed(bare), wanted)
        self.assertEqual(rewriter.rewritten, 1)

    def test_preloads(self) -> None:
        """What a script will ask for itself is not preloaded from elsewhere; a manifest speaks for its own site."""
        self.same(b"<link rel=preload as=fetch href=/static/x.json>")
        self.same(b"<link rel=manifest href=/static/x.json>")
        self.check(
            b"<link as=font rel=preload href=/static/x>", b"<link as=font rel=preload href=" + CDN + b"/static/x>"
        )

    def test_meta(self) -> None:
        """A policy against the CDN, or a charset with escapes, ends the rewriting of a page."""
        tag = b"<img src=/static/x>"
        for meta in (
            b'<meta http-equiv="content-security-policy" content="default-src \'self\'">',
            b"<meta charset=ISO-2022-JP>",
            b'<META http-equiv=Content-Type content="text/html; charset=iso-2022-jp">',
        ):
            self.check(tag + meta + tag, rewrite(tag) + meta + tag)
        for meta in (
            b"<meta charset=utf-16>",
            b"<meta name=x content='iso-2022-jp'>",
            b"<meta http-equiv=content-security-policy content='img-src *'>",
        ):
            self.check(meta + tag, meta + rewrite(tag))

    def test_own_attributes(self) -> None:
        """Attributes of a lazily loading site, where they are named."""
        rules = CdnRules(
            hosts=["cdn.example"], scheme="https", paths=["/static/"], attributes=["data-src", "DATA-srcset"]
        )
        html = b"<img src=x Data-Src=%/static/x data-srcset='%/static/y 2x, z'>"
        rewriter = HtmlRewriter(rules, Page(b"site.example", b"/"))
        self.assertEqual(rewriter.feed(html.replace(b"%", b"")), html.replace(b"%", CDN))

    def test_long_comment_streams(self) -> None:
        """A comment or script of any length leaves while it comes."""
        for start in (b"<!--", b"<script>", b"<style>"):
            rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"))
            out = rewriter.feed(start)
            for _ in range(100):
                out += rewriter.feed(b"- x <b " * 1000)
            self.assertGreater(len(out), 690_000)


fragments = st.sampled_from(
    [
        b"<", b">", b"!", b"--", b"-", b"/", b"=", b'"', b"'", b" ", b"\n", b"&", b"&amp;", b"img", b"<img ", b"src",
        b"src=", b"srcset=", b"/static/x", b"<script>", b"</script>", b"<script", b"<!--", b"-->", b"<title>",
        b"</title>", b"<p ", b"x", b"\0", b"\xc3\xa4", b"1x", b",", b"<link rel=icon href=", b"</", b"<?", b"<!",
    ]
)  # fmt: skip


class FuzzTests(SynchronousTestCase):
    """Soup of any kind."""

    @settings(deadline=None, max_examples=300)
    @given(st.lists(fragments, max_size=25).map(b"".join), st.integers(1, 9))
    def test_chunks_do_not_matter(self, html: bytes, size: int) -> None:
        """The output depends on the octets, not on how they were cut."""
        pieces = [html[at : at + size] for at in range(0, len(html), size)]
        self.assertEqual(rewrite(html, pieces or [b""]), rewrite(html))

    @settings(deadline=None, max_examples=300)
    @given(st.lists(fragments, max_size=25).map(b"".join))
    def test_only_insertions(self, html: bytes) -> None:
        """Take the CDN's name out again, and the page is what it was."""
        page = re.sub(rb"x", b"y", html)
        self.assertEqual(rewrite(page, path=b"/").replace(CDN, b""), page)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=100))
    def test_any_octets(self, html: bytes) -> None:
        """Octets at random come out as they went in."""
        self.assertEqual(rewrite(html), html)


class OracleTests(SynchronousTestCase):
    """BeautifulSoup, which reads the whole tree, agrees on what a page refers to."""

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["img", "script", "source", "a", "div", "video"]),
                st.sampled_from(["src", "href", "poster", "alt", "title"]),
                st.sampled_from(["/static/x", "/other", "static/y", "//site.example/static/z", "https://q/static/x"]),
                st.sampled_from(['"', "'", ""]),
            ),
            max_size=12,
        )
    )
    def test_same_tree(self, tags: list[tuple[str, str, str, str]]) -> None:
        """Rewriting by octets is rewriting of attributes, no more and no less."""
        html = "".join(f"<{tag} {name}={quote}{url}{quote}></{tag}>text" for tag, name, url, quote in tags)
        after = rewrite(html.encode(), path=b"/").decode()
        wanted: Any = BeautifulSoup(html, "html.parser")
        places = {"img": ("src",), "script": ("src",), "source": ("src",), "video": ("src", "poster")}
        for element in wanted.find_all(True):
            for name in places.get(element.name, ()):
                moved = RULES.moved(element.attrs.get(name, "").encode(), Page(b"site.example", b"/"))
                if moved:
                    element.attrs[name] = moved.decode()
        self.assertEqual(BeautifulSoup(after, "html.parser"), wanted)


class RuleTests(SynchronousTestCase):
    """Which URLs are moved."""

    def moved(self, url: bytes, page: Page | None = None) -> bytes | None:
        return RULES.moved(url, page or Page(b"site.example", b"/a/b.html"))

    def test_ours(self) -> None:
        """Rooted, relative, and absolute ones that name the site."""
        for url, path in (
            (b"/static/x", b"/static/x"),
            (b"/static/x?q#f", b"/static/x?q#f"),
            (b"../static/x", b"/static/x"),
            (b"//site.example/static/x", b"/static/x"),
            (b"//SHOP.example:443/static/x", b"/static/x"),
            (b"HTTP://shop.example:80/static/x", b"/static/x"),
            (b"https://site.example/static/./x", b"/static/x"),
        ):
            self.assertEqual(self.moved(url), CDN + path)

    def test_not_ours(self) -> None:
        """Other sites, other ports, other schemes, other paths, nothing at all."""
        for url in (
            b"",
            b"#static",
            b"?/static/",
            b"/other/static/",
            b"/static",
            b"static/x",
            b"//elsewhere/static/x",
            b"https://site.example:8443/static/x",
            b"https://site.example",
            b"https:/static/x",
            b"data:/static/x",
            b"javascript:/static/x",
            b"/static/../secret",
            b"/static/%2e%2e/secret",
            b"\\static\\x",
            b"/sta\ntic/x",
        ):
            self.assertIsNone(self.moved(url), url)

    def test_dots(self) -> None:
        """Dot segments (RFC 3986 §5.2.4)."""
        for path, wanted in (
            (b"/a/b/../c", b"/a/c"),
            (b"/a/./b/.", b"/a/b/"),
            (b"/../a", b"/a"),
            (b"/a/..", b"/"),
            (b"/a/%2E./b", b"/b"),
            (b"/a//b", b"/a//b"),
        ):
            self.assertEqual(without_dots(path), wanted)


class SrcsetTests(SynchronousTestCase):
    """Candidates (WHATWG HTML §4.8.4.2.1)."""

    def test_candidates(self) -> None:
        """Commas belong to URLs, to descriptors in brackets, or stand between."""
        for value, wanted in (
            (b"a 1x, b 2x", [b"a", b"b"]),
            (b"a,b", [b"a,b"]),
            (b"a, b", [b"a", b"b"]),
            (b" ,a 1x,,b", [b"a", b"b"]),
            (b"a calc(1,2), b", [b"a", b"b"]),
            (b"data:,x 1x, b 2x", [b"data:,x", b"b"]),
            (b"", []),
            (b" , ", []),
            (b"a 1x (", [b"a"]),
        ):
            self.assertEqual([value[start:end] for start, end in candidate_urls(value)], wanted)
