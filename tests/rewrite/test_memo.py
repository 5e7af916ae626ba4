"""Results that are used again give what rewriting would give, whatever comes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.codings import coder, decoder
from lbarray.rewrite.contents import Pipeline, Stage
from lbarray.rewrite.documents import StyleSheetRewriter
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.memo import Memo, Recorded, Remembering
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.telemetry.counters import Counters
from tests.rewrite.test_service import gzip

RULES = CdnRules(hosts=["cdn.example"], paths=["/static/"])
FRAGMENTS = [
    b"<img src=/static/x>", b"<script src='/static/y' integrity=a></script>", b"<script src='/static/y' ",
    b"integrity=a>", b"</script>",
    b"<p>", b"text ", b"<style>a{b:url(/static/z)}", b"</style>", b"url(/static/q) ", b"<a title='", b"'",
    b">", b"<", b"<!--", b"-->", b"<img srcset='/static/a 1x, /static/b 2x'>",
]  # fmt: skip
documents = st.lists(st.sampled_from(FRAGMENTS), max_size=12)
#: How many fragments of the first page another has; which follow; how many octets are cut off; in what pieces it comes.
others_like_it = st.tuples(st.integers(0, 12), documents, st.integers(0, 60), st.integers(1, 60))


def source(kind: Callable[[CdnRules, Page], Any], coding: bytes) -> Callable[[], Pipeline]:
    def make() -> Pipeline:
        rewriter = kind(RULES, Page(b"site.example", b"/"))
        return Pipeline(
            [Stage(rewriter, "cdn", "page", Counters())],
            rewriter=rewriter,
            reader=decoder(coding) if coding else None,
            writer=coder(coding) if coding else None,
            counters=Counters(),
        )

    return make


class RememberingTests(SynchronousTestCase):
    """Pages that come again, and pages that only begin like the last one."""

    @settings(deadline=None, max_examples=400)
    @given(
        st.sampled_from([HtmlRewriter, StyleSheetRewriter]),
        st.sampled_from([b"", b"gzip"]),
        documents,
        st.lists(
            st.tuples(st.integers(0, 12), documents, st.integers(0, 60), st.integers(1, 60)), min_size=1, max_size=4
        ),
    )
    def test_as_without(
        self,
        kind: Callable[[CdnRules, Page], Any],
        coding: bytes,
        first: list[bytes],
        others: list[tuple[int, list[bytes], int, int]],
    ) -> None:
        """Each page's result is the rewriter's own; or, when the memo had given part of a tag that turned out to be
        another, the rest of the page leaves as it came."""
        memo = Memo(1 << 20)
        for kept, more, short, size in [(12, [], 0, 1000), *others]:
            page = b"".join([*first[:kept], *more])
            page = page[: max(0, len(page) - short)]
            octets = gzip(page) if coding else page
            body = Remembering(memo, "key", source(kind, coding), coded=bool(coding), counters=Counters())
            out = b"".join(body.feed(octets[at : at + size]) for at in range(0, len(octets), size)) + body.finish()
            if coding:
                out = zlib.decompress(out, 31)
            rewriter = kind(RULES, Page(b"site.example", b"/"))
            wanted = rewriter.feed(page) + rewriter.finish()
            if out != wanted:
                self.assertFalse(coding)
                self.assertEqual(out.replace(b"https://cdn.example", b""), page)
                length = next(at for at in range(len(wanted) + 1) if out[: at + 1] != wanted[: at + 1])
                self.assertNotIn(b"https://cdn.example", out[length:])

    def test_part_of_another_tag(self) -> None:
        """When what left is part of a tag that turns out to need a change, the page goes on as it came."""
        memo = Memo(1 << 20)
        start = b"<script src='/static/y' "
        pages = (start + b"integrity=a></script>", start + b"defer></script><img src=/static/z>")
        for page in pages:
            body = Remembering(memo, "key", source(HtmlRewriter, b""), coded=False, counters=Counters())
            out = [body.feed(start), body.feed(page[len(start) :]), body.finish()]
        self.assertEqual(out[0], start)
        self.assertEqual(b"".join(out), pages[1])


class MemoTests(SynchronousTestCase):
    """What is kept."""

    def result(self, size: int) -> Recorded:
        return Recorded(came=b"x" * size, left=b"", starts=[], ends=[], out_ends=[], coded=False, urls=0)

    def test_bounded(self) -> None:
        """The least recently used go first; what is larger than all of it is not kept."""
        memo = Memo(5000)
        for key in (1, 2, 3):
            memo.keep(key, self.result(1000))
        memo.find(1)
        memo.keep(4, self.result(1000))
        self.assertEqual([memo.find(key) is not None for key in (1, 2, 3, 4)], [True, False, True, True])
        memo.keep(5, self.result(6000))
        self.assertIsNone(memo.find(5))
        self.assertLessEqual(memo.octets, 5000)
        memo.keep(1, self.result(500))
        self.assertLessEqual(memo.octets, 5000)

    def test_patience(self) -> None:
        """Where every page is another, results are kept now and then only; a page that came again is kept at once."""
        memo = Memo(5000)
        wanted = []
        for _ in range(64):
            memo.missed("key")
            wanted.append(memo.wants("key"))
        self.assertLess(sum(wanted), 10)
        memo.hit("key")
        memo.missed("key")
        self.assertTrue(memo.wants("key"))

    def test_in_hand(self) -> None:
        """Results that are not complete count as well, until their responses are over or given up."""
        memo = Memo(10_000)
        bodies = [
            Remembering(memo, key, source(HtmlRewriter, b""), coded=False, counters=Counters()) for key in range(20)
        ]
        for body in bodies:
            body.feed(b"x" * 1000)
        self.assertLessEqual(memo.in_hand, 12_000)
        self.assertGreater(memo.in_hand, 0)
        bodies[0].finish()
        bodies.clear()
        del body
        self.assertEqual(memo.in_hand, 0)
        self.assertIsNotNone(memo.find(0))
