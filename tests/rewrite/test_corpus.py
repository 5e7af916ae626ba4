"""Pages that others wrote, each cut everywhere; a tree builder and BeautifulSoup say what really changed."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import turbohtml
from bs4 import BeautifulSoup
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from tests.rewrite.oracle import PLACES, moved_alike, tree_difference

FOLDER = Path(__file__).parent / "html5lib"
NOTHING = CdnRules(hosts=["cdn.example"], paths=["/nothing/of/this/"])
#: Everything of the site's own moves.
ALL = CdnRules(hosts=["cdn.example"], paths=["/"])
PROBE = b"<img src=/static/probe>"


def cases() -> Iterator[bytes]:
    """Small hard ones."""
    for name in ("tokenizer", "tree-construction"):
        for case in json.loads((FOLDER / f"{name}.json").read_text()):
            yield case.encode("utf-8", "surrogatepass")


def shipped_pages(limit: int = 40, largest: int = 150_000) -> list[Path]:
    """Pages in this Python's packages and in Debian's."""
    places = (Path(sysconfig.get_paths()["purelib"]), Path("/usr/share/doc"), Path("/usr/share/javascript"))
    found = [path for place in places if place.is_dir() for path in sorted(place.rglob("*.htm*"))[: 20 * limit]]
    pages = [path for path in found if path.is_file() and 0 < path.stat().st_size <= largest]
    return pages[:: max(1, len(pages) // limit)][:limit]


def rewrite(rules: CdnRules, page: bytes, cuts: tuple[int, ...] = ()) -> tuple[bytes, HtmlRewriter]:
    rewriter = HtmlRewriter(rules, Page(b"site.example", b"/folder/page.html"))
    out = b""
    for first, last in zip((0, *cuts), (*cuts, len(page)), strict=True):
        out += rewriter.feed(page[first:last])
    return out + rewriter.finish(), rewriter


def has_probe(page: bytes) -> bool:
    """A tree builder sees the probe as an element."""
    document: Any = turbohtml.parse(page.decode("utf-8", "replace"))
    return document.select_one('img[src="/static/probe"]') is not None


class CaseTests(SynchronousTestCase):
    """The cases of html5lib-tests."""

    def test_without_rules(self) -> None:
        """Nothing changes, cut at every place and octet by octet."""
        for case in cases():
            cuts: list[tuple[int, ...]] = [(at,) for at in range(1, len(case))]
            for cut in (*cuts[:80], tuple(range(1, min(len(case), 400)))):
                self.assertEqual(rewrite(NOTHING, case, cut)[0], case)

    def test_probe_is_not_missed(self) -> None:
        """Of the references that a tree builder sees few are left alone."""
        seen = missed = 0
        for case in cases():
            page = case + PROBE
            if has_probe(page):
                seen += 1
                missed += rewrite(CdnRules(hosts=["cdn.example"], paths=["/static/probe"]), page)[0] == page
        self.assertGreater(seen, 500)
        self.assertLess(missed, seen // 10)

    def test_same_tree(self) -> None:
        """With rules the tree differs in the intended attributes only, and the cut does not matter."""
        for case in cases():
            page = case + PROBE
            out, _ = rewrite(ALL, page)
            self.assertIsNone(tree_difference(page, out), page)
            for cut in range(1, len(page), max(1, len(page) // 7)):
                self.assertEqual(rewrite(ALL, page, (cut,))[0], out)


class ShippedPageTests(SynchronousTestCase):
    """Pages of packages."""

    def test_pages(self) -> None:
        """Nothing changes without rules; with them the trees differ in the intended attributes only."""
        pages = shipped_pages()
        self.assertGreater(len(pages), 5)
        changed = 0
        for path in pages:
            page = path.read_bytes()
            step = max(1, len(page) // 50)
            for cut in range(1, len(page), step):
                self.assertEqual(rewrite(NOTHING, page, (cut,))[0], page)
            out, _ = rewrite(ALL, page)
            changed += out != page
            self.assertIsNone(tree_difference(page, out), path)
            self.assertEqual(rewrite(ALL, page, tuple(range(1, len(page), 977)))[0], out)
        self.assertGreater(changed, 0)

    def test_beautiful_soup(self) -> None:
        """BeautifulSoup's trees say the same of pages that every parser reads alike."""
        for path in shipped_pages(limit=12, largest=40_000):
            page = path.read_bytes()
            out, _ = rewrite(ALL, page)
            before, after = BeautifulSoup(page, "html.parser"), BeautifulSoup(out, "html.parser")
            for old, new in zip(before.find_all(True), after.find_all(True), strict=True):
                for name in old.attrs.keys() | new.attrs.keys():
                    if old.attrs.get(name) != new.attrs.get(name):
                        self.assertIn(name, PLACES.get(old.name, set()) | {"style", "background"})
                        self.assertTrue(moved_alike(name, str(old.attrs[name]), str(new.attrs[name])), path)
