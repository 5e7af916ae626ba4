"""For authors of filters: put something behind a page's first tag of some name, while it streams."""

from __future__ import annotations

import re

from zope.interface import implementer

from lbarray.interfaces import IContentFilter
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.rules import CdnRules, Page

__all__ = ["Inserter"]


@implementer(IContentFilter)
class Inserter(HtmlRewriter):
    """Finds the first start tag of an element as a browser would, and inserts markup behind it.

    :param element: its name, such as ``b"body"``.
    :param markup: in the page's charset.
    """

    def __init__(self, element: bytes, markup: bytes) -> None:
        name = element.lower()
        # No host, so nothing moves; the place of its own makes the scan stop at the element.
        rules = CdnRules(hosts=[], css=False, attributes=[f"{name.decode()}@lbarray-insert"])
        super().__init__(rules, Page(b"", b"/"))
        self._element = name
        self._markup_behind = markup
        self._inserted = False

    def _html_tag(self, data: bytes, tag: re.Match[bytes]) -> None:
        if not self._inserted and tag[2].lower() == self._element:
            self._inserted = True
            self._change(tag.start(), tag.end(), ((tag.end(), tag.end(), self._markup_behind),))
        super()._html_tag(data, tag)
