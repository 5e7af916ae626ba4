"""SVG and MathML as a tree builder sees them; turbohtml's is the oracle."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page
from tests.rewrite.oracle import tree_difference

RULES = CdnRules(hosts=["cdn.example"], paths=["/static/"])

#: What makes tree builders stumble, and a reference in between that must be seen for what it is.
FRAGMENTS = [
    "<svg>",
    "</svg>",
    "<svg/>",
    "<svg a=b/>",
    "<math>",
    "</math>",
    "<title>",
    "</title>",
    "<title/>",
    "<style>",
    "</style>",
    "<script>",
    "</script>",
    "<p>",
    "</p>",
    "</br>",
    "<div>",
    "</div>",
    "<span>",
    "</span>",
    "<b>",
    "</b>",
    "<a>",
    "</a>",
    "<desc>",
    "</desc>",
    "<foreignObject>",
    "</foreignObject>",
    "<mi>",
    "</mi>",
    "<annotation-xml encoding=text/html>",
    "</annotation-xml>",
    "<select>",
    "</select>",
    "<textarea>",
    "</textarea>",
    "<table>",
    "<tr>",
    "<td>",
    "</td>",
    "</table>",
    "<template>",
    "</template>",
    "<col>",
    "<frameset>",
    "<noscript>",
    "</noscript>",
    "<noframes>",
    "</noframes>",
    "<xmp>",
    "</xmp>",
    "<iframe>",
    "</iframe>",
    "<plaintext>",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<font size=1>",
    "<li>",
    "<image href=/static/i>",
    "<g>",
    "</g>",
    "<path/>",
    "<body>",
    "<html>",
    "<head>",
    "<button>",
    "<input>",
    "<mglyph>",
    "text",
    '"',
    "'",
    "<a title='",
    "<script>/*<!--*/",
    "<script src=/static/s />",
    "<img src=/static/x>",
    "<img src=/static/x>",
    "<img src=/static/x>",
    "<p style='b:url(/static/y)'>",
    "<i alt='<img src=/static/y>'>",
]


def rewrite(html: bytes) -> tuple[bytes, str]:
    rewriter = HtmlRewriter(RULES, Page(b"site.example", b"/"))
    return rewriter.feed(html) + rewriter.finish(), rewriter.left


class ForeignTests(SynchronousTestCase):
    """What follows is markup, or it is not."""

    def test_same_tokens(self) -> None:
        """After malformed SVG the next tag is read as a browser reads it."""
        tag, moved = b"<img src=/static/x>", b"<img src=https://cdn.example/static/x>"
        for start in (
            b"<svg></p><title/>",  # </p> ended the SVG, so this title is a text
            b"<svg><p><title>",
            b"<svg><desc><p></p></desc></svg><title>",
            b"<math><mi><title>",
            b"<svg><font size=1><style>",
        ):
            self.assertEqual(rewrite(start + tag), (start + tag, ""), start)
        for start in (
            b"<svg><title><p>",
            b"<svg><style>",
            b"<svg><script>",
            b"<svg><font><style>",
            b"<svg><foreignObject><div></div></foreignObject><style>",
        ):
            self.assertEqual(rewrite(start + tag), (start + moved, ""), start)

    def test_doubt(self) -> None:
        """Where it depends on more than is kept, or browsers differ, the rest stays as it is."""
        tag = b"<img src=/static/x>"
        for start in (
            b"<div><svg></div><title></title>",
            b"<svg><foreignObject><table></foreignObject></svg><title></title>",
            b"<select><style></style>",
            b"<select><svg></svg>",
            b"<frameset><title></title>",
            b"<template><col><style></style></template>",
        ):
            self.assertEqual(rewrite(start + tag), (start + tag, "ambiguous"), start)

    def test_doubt_passes(self) -> None:
        """What ends the SVG in any case ends the doubt."""
        for start in (b"<div><svg></div></svg>", b"<div><svg></div><p>"):
            page = start + b"<title>x</title><img src=/static/x>"
            self.assertEqual(rewrite(page), (page.replace(b"=/static", b"=https://cdn.example/static"), ""), start)

    @settings(deadline=None, max_examples=1500)
    @given(st.lists(st.sampled_from(FRAGMENTS), min_size=2, max_size=14).map("".join))
    def test_same_tree(self, html: str) -> None:
        """Of any soup the tree differs in the intended attributes, and in nothing else."""
        out, _ = rewrite(html.encode())
        self.assertIsNone(tree_difference(html.encode(), out))
