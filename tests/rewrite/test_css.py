"""Style sheets: their URLs, and every other octet as it was."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.css import LONGEST_TOKEN, style_changes
from lbarray.rewrite.documents import StyleSheetRewriter
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.testing import every_split

RULES = CdnRules(hosts=["cdn.example"], paths=["/static/"])
CDN = b"https://cdn.example"
PAGE = Page(b"site.example", b"/a/sheet.css")


def rewrite(sheet: bytes, pieces: list[bytes] | None = None) -> bytes:
    rewriter = StyleSheetRewriter(RULES, PAGE)
    return b"".join(rewriter.feed(piece) for piece in pieces or [sheet]) + rewriter.finish()


class StyleSheetTests(SynchronousTestCase):
    """One sheet in, one sheet out, however it is cut."""

    def check(self, marked: bytes) -> None:
        """``%`` stands where the CDN's name comes in."""
        before = marked.replace(b"%", b"")
        for pieces in every_split(before):
            self.assertEqual(rewrite(before, pieces), marked.replace(b"%", CDN), pieces)

    def test_places(self) -> None:
        """URLs with quotation marks and without, imports, image sets, fonts."""
        for marked in (
            b"a{b:url(%/static/x)}",
            b"a{b:URL( '%/static/x' )}",
            b'a{b:url("%/static/x"),url(%/static/y)}',
            b'@import "%/static/x";',
            b"@IMPORT/* of */url(%/static/x) screen;",
            b"@import\n'%/static/x' layer(base);",
            b"a{b:image-set('%/static/x' 1x, url(%/static/y) 2x type('/static/no'))}",
            b"a{b:-webkit-image-set(url(%/static/y) 2x)}'/static/z'",
            b"@font-face{src:url(%/static/f.woff2)format('woff2'),local('/static/no')}",
            b"a{b:calc((1px + 2px)*3);c:url(%/static/x)}",
        ):
            self.check(marked)

    def test_no_places(self) -> None:
        """Comments, strings, other functions, escapes, unfinished and broken tokens, other sites."""
        for sheet in (
            b"/* url(/static/x) */",
            b"a::after{content:'url(/static/x)'}",
            b'a{b:"\\"url(/static/x)"}',
            b"a{b:curl(/static/x)}",
            b"a{b:u\\72l(/static/x)}",
            b"a{b:url(/static/x y)}",
            b"a{b:url(/static/x'y)}",
            b"a{b:url(/static/x",
            b"@imported '/static/x'",
            b"@namespace x '/static/x'",
            b"a{b:url(data:image/png;base64,/static/x)}",
            b"a{b:url(//elsewhere.example/static/x)}",
            b"a{b:url()}",
            b"/* url(/static/x)",
            b"a{b:url(/static/x\\",
        ):
            self.check(sheet)

    def test_bad_string_ends_at_its_line(self) -> None:
        """A string that its line cuts short is over; what follows is no string (CSS Syntax 3 §4.3.5)."""
        self.check(b"a{b:'x\n;c:url(%/static/x)}")

    def test_relative(self) -> None:
        """Relative URLs start at the sheet."""
        self.assertEqual(rewrite(b"a{b:url(../static/i/../x)}"), b"a{b:url(https://cdn.example/static/x)}")

    def test_long_tokens_leave(self) -> None:
        """Images written into the sheet are not held; what follows them is seen."""
        for start, end in ((b"a{b:url(data:x,", b")"), (b"a{b:url('data:x,", b"')"), (b"/*", b"*/"), (b"'", b"'")):
            rewriter = StyleSheetRewriter(RULES, PAGE)
            out = rewriter.feed(start)
            for _ in range(20):
                out += rewriter.feed(b"y" * 1000)
                self.assertLessEqual(len(rewriter.held), LONGEST_TOKEN + 1000)
            out += rewriter.feed(end + b"c:url(/static/x)") + rewriter.finish()
            self.assertTrue(out.endswith(end + b"c:url(" + CDN + b"/static/x)"), start)

    @settings(deadline=None, max_examples=300)
    @given(
        st.lists(
            st.sampled_from(
                b"url( /static/x ) ' \" /* */ \\ @import image-set( \n a{b: } ; , data: ( x u r l -".split(b" ")
            ),
            max_size=20,
        ).map(b"".join),
        st.integers(1, 9),
    )
    def test_any_pieces(self, sheet: bytes, size: int) -> None:
        """The output depends on the octets, not on how they were cut; without the CDN's name it is the input."""
        pieces = [sheet[at : at + size] for at in range(0, len(sheet), size)]
        out = rewrite(sheet, pieces or [b""])
        self.assertEqual(out, rewrite(sheet))
        self.assertEqual(out.replace(CDN, b""), sheet)


class StylesInPagesTests(SynchronousTestCase):
    """Style elements and attributes."""

    def check(self, marked: bytes) -> None:
        before = marked.replace(b"%", b"")
        for pieces in every_split(before):
            rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"))
            out = b"".join(map(rewriter.feed, pieces)) + rewriter.finish()
            self.assertEqual(out, marked.replace(b"%", CDN), pieces)

    def test_element(self) -> None:
        """A style element ends at its end tag, whatever its sheet is in the middle of."""
        self.check(b"<style>a{b:url(%/static/x)}</style><img src=%/static/y>")
        self.check(b"<style>/* </style><img src=%/static/y>")
        self.check(b"<style>a{b:url(/static/x</style><img src=%/static/y>")

    def test_attribute(self) -> None:
        """On any element; with character references; quotation marks of the other kind."""
        self.check(b"<p style=\"background:url('%/static/x')\">")
        self.check(b'<p class=x style="background:url(&quot;%/static/x&quot;)">')
        self.check(b"<p style=background:url(%/static/x)><a style='color:red'>")
        self.check(b"<svg><g style='fill:url(#a)'/><path style='mask:url(%/static/x)'/></svg>")
        self.check(b"<table background=%/static/x>")

    def test_off(self) -> None:
        """Without ``css`` style sheets are let alone."""
        rules = CdnRules(hosts=["cdn.example"], paths=["/static/"], css=False)
        page = b"<style>a{b:url(/static/x)}</style><p style='b:url(/static/x)'>"
        rewriter = HtmlRewriter(rules, Page(b"site.example", b"/"))
        self.assertEqual(rewriter.feed(page) + rewriter.finish(), page)

    def test_declarations(self) -> None:
        """What changes, by place."""
        self.assertEqual(style_changes(b"b:url(/static/x)", RULES, PAGE), [(6, 6, CDN)])
