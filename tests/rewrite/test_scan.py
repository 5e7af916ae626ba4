"""The scan in C and the one by a regular expression stop at the same tags."""

from __future__ import annotations

from unittest import SkipTest

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.rewrite.tokens import COMPILED, grammar
from tests.rewrite.test_corpus import PROBE, cases, shipped_pages
from tests.rewrite.test_foreign import FRAGMENTS

RULES = CdnRules(hosts=["cdn.example"], paths=["/"], attributes=["data-src", "a@href"], embeds=True)
MORE = [
    "<img ", "src", "=", '"', "'", "/static/x", " ", "\n", "/", ">", "style", "background", "data-src", "(", "alt=x",
    "SRC='/static/X'", "<IMG", "<p", "</", "</p", "<!", "--", "-", "!", "<?", "<", "&amp;", "\0", "integrity",
    "<object data=", "<script src=/static/s></script>", "<img src=//site.example/x>", "<img src>", "<img src=>",
    "<a href=/static/y>", "STYLE='a:b'", "style = 'url(/static/z)'", "=x", "<select",
]  # fmt: skip


def rewrite(page: bytes, compiled: bool, size: int) -> tuple[bytes, str, int]:
    rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"), compiled=compiled)
    out = b"".join(rewriter.feed(page[at : at + size]) for at in range(0, len(page), size))
    return out + rewriter.finish(), rewriter.left, rewriter.rewritten


class ScanTests(SynchronousTestCase):
    """Two ways, one result."""

    def setUp(self) -> None:
        if not COMPILED:
            raise SkipTest("lbarray.rewrite._scan is not built here")

    @settings(deadline=None, max_examples=1500)
    @example("<svg></math><![CDATA[", 1)
    @given(st.lists(st.sampled_from([*FRAGMENTS, *MORE]), max_size=20).map("".join), st.sampled_from([1, 5, 1000]))
    def test_soup(self, html: str, size: int) -> None:
        """Of anything, in pieces of any size."""
        page = html.encode()
        content, _, changes = rewrite(page, True, size)
        other, _, other_changes = rewrite(page, False, 1000)
        self.assertEqual((content, changes), (other, other_changes))
        # What is held is looked at again when there is a ">": why a page was left is not settled before.
        self.assertEqual(rewrite(page + b">", True, size), rewrite(page + b">", False, 1000))

    @settings(deadline=None, max_examples=300)
    @given(st.binary(max_size=60))
    def test_octets(self, page: bytes) -> None:
        """Of octets at random, too."""
        self.assertEqual(rewrite(page, True, 1000), rewrite(page, False, 1000))

    def test_corpus(self) -> None:
        """Of pages that others wrote."""
        for page in (*(case + PROBE for case in cases()), *(path.read_bytes() for path in shipped_pages(20))):
            self.assertEqual(rewrite(page, True, 977), rewrite(page, False, len(page)))

    def test_refuses(self) -> None:
        """Places outside of the data, and what is no octets."""
        scan = grammar(compiled=True).scan
        for wrong in ((b"abc", -1, 3), (b"abc", 0, 4), (b"abc", 3, 2)):
            self.assertRaises(ValueError, scan, *wrong)
        self.assertRaises(TypeError, scan, "abc", 0, 3)
        self.assertEqual(scan(b"<img src='/x'>", 0, 5), (0, 0, 0, None, None))
