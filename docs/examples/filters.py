"""Three filters as a plug-in: put this file into a folder ``twisted/plugins`` on Python's path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bs4 import BeautifulSoup
from twisted.plugin import IPlugin
from zope.interface import implementer

from lbarray.http.events import ResponseHead
from lbarray.interfaces import IRewriteFilter, IRewriteFilterFactory, ITreeFilter
from lbarray.rewrite.insert import Inserter
from lbarray.rewrite.plugins import PageContext


def is_html(response: ResponseHead) -> bool:
    return (response.get(b"content-type") or b"").partition(b";")[0].strip().lower() == b"text/html"


# A filter of streaming content: a banner on every page.


@implementer(IRewriteFilter)
class Banner:
    name = "banner"

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self, page: PageContext, response: ResponseHead) -> Inserter | None:
        if not is_html(response):
            return None
        markup = f'<p class="banner">{self._text}</p>'
        return Inserter(b"body", markup.encode(page.charset or "utf-8", "xmlcharrefreplace"))


# A filter of trees: remove what is loaded from trackers. It holds each page until it is complete.


@implementer(IRewriteFilter, ITreeFilter)
class WithoutTrackers:
    name = "without-trackers"

    def __init__(self, hosts: list[str]) -> None:
        self._hosts = [f"//{host}/" for host in hosts]

    def open(self, page: PageContext, response: ResponseHead) -> WithoutTrackers | None:
        return self if is_html(response) else None

    def change(self, soup: BeautifulSoup) -> None:
        for element in soup.find_all(["script", "img", "iframe"], src=True):
            if any(host in str(element["src"]) for host in self._hosts):
                element.decompose()


# A filter of fields alone: the content is not even looked at.


@implementer(IRewriteFilter)
class SecurityFields:
    name = "security-fields"

    def open(self, page: PageContext, response: ResponseHead) -> None:
        response.remove(b"server")
        if response.get(b"x-content-type-options") is None:
            response.fields.append((b"X-Content-Type-Options", b"nosniff"))


@implementer(IPlugin, IRewriteFilterFactory)
class Factory:
    """Makes filters of one kind; ``wanted`` names its options and their types."""

    def __init__(self, name: str, make: Any, **wanted: type) -> None:
        self.name = name
        self._make = make
        self._wanted = wanted

    def filter(self, options: Mapping[str, object]) -> object:
        for option in options:
            if option not in self._wanted:
                raise ValueError(f"{option} is none of: {', '.join(self._wanted) or 'there are no options'}")
        for option, kind in self._wanted.items():
            if not isinstance(options.get(option), kind):
                raise ValueError(f"{option}, a {kind.__name__}")
        return self._make(**options)


banner = Factory("banner", Banner, text=str)
without_trackers = Factory("without-trackers", WithoutTrackers, hosts=list)
security_fields = Factory("security-fields", SecurityFields)
