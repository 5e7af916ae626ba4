"""The filter that sends readers to the CDN: which responses, and what is done with their content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lbarray.http.events import RequestHead, ResponseHead
from lbarray.rewrite.csp import amended
from lbarray.rewrite.documents import ManifestRewriter, StyleSheetRewriter
from lbarray.rewrite.fields import rewrite_links, rewrite_location
from lbarray.rewrite.html import HtmlRewriter
from lbarray.rewrite.pages import PageRules
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress

__all__ = ["CdnFilter", "Rewriter"]

HTML = b"text/html"
_XHTML = b"application/xhtml+xml"
_CSS = b"text/css"
_MANIFESTS = (b"application/manifest+json", b"application/x-web-app-manifest+json")

#: A page's rewriter, or a style sheet's, or a manifest's.
Rewriter = HtmlRewriter | StyleSheetRewriter | ManifestRewriter


class CdnFilter:
    """Decides about responses; one for all of them.

    :param rules: what is moved where.
    :param pages: whose pages.
    :param amend_csp: widen policies that would keep browsers from the CDN, instead of leaving their pages alone.
    """

    name = "cdn"

    def __init__(
        self,
        *,
        rules: CdnRules,
        pages: PageRules,
        counters: Counters,
        amend_csp: bool = False,
        link_fields: bool = True,
        manifests: bool = False,
        location: bool = False,
    ) -> None:
        self.rules = rules
        self.pages = pages
        self._counters = counters
        self._amend_csp = amend_csp
        self._link_fields = link_fields
        self._manifests = manifests
        self._location = location

    def look(self, request: RequestHead, response: ResponseHead, media_type: bytes) -> None:
        """At any response: learn what is behind its path, and where it leads."""
        rules = self.rules
        if rules.selection.learns and response.status == 200 and request.method in (b"GET", b"HEAD"):
            length = response.get(b"content-length") or b""
            coded = response.get(b"content-encoding")
            size = int(length) if length.isdigit() and not coded else -1
            rules.learn(request.path, media_type, size)
        if self._location and 300 <= response.status < 400:
            page = Page(request.host, request.path)
            self._counters.add("rewrite_urls", "", rewrite_location(response, rules, page))
        if media_type == _XHTML:
            # Its grammar is XML's: other rules for scripts, CDATA and "/>".
            self._counters.add("rewrite_left", "xhtml")

    def reads(self, media_type: bytes) -> bool:
        """Content of this type has URLs that may move."""
        return self._kind(media_type) is not None and bool(self.rules.alive)

    def open(
        self, request: RequestHead, response: ResponseHead, client: ClientAddress, media_type: bytes
    ) -> Callable[[], Rewriter] | None:
        """Of a response that :meth:`reads`: change what the fields say; what makes the content's rewriter."""
        kind = self._kind(media_type)
        if self.pages.skip_cookies and kind is HtmlRewriter:
            _vary_by_cookie(response)
        if why := self.pages.why_not(request, client):
            self._counters.add("rewrite_left", why)
            return None
        page = Page(request.host, request.path)
        if kind is HtmlRewriter:
            if not self._permitted(response):
                self._counters.add("rewrite_left", "csp")
                return None
            if self._link_fields:
                self._counters.add("rewrite_urls", "", rewrite_links(response, self.rules, page))
        rules = self.rules
        return lambda: kind(rules, page)

    def _kind(self, media_type: bytes) -> Any:
        if media_type == HTML:
            return HtmlRewriter
        if media_type == _CSS:
            return StyleSheetRewriter if self.rules.css else None
        return ManifestRewriter if self._manifests and media_type in _MANIFESTS else None

    def _permitted(self, response: ResponseHead) -> bool:
        policies = response.get_all(b"content-security-policy")
        if self.rules.permitted_by(policies):
            return True
        if not self._amend_csp:
            return False
        origins = [self.rules.absolute(origin) for origin in self.rules.alive]
        changed = [amended(policy, origins, self.rules.prefixes) for policy in policies]
        if None in changed:
            return False
        values = iter(changed)
        response.fields[:] = [
            (name, next(values) or b"") if name.lower() == b"content-security-policy" else (name, value)
            for name, value in response.fields
        ]
        return True


def _vary_by_cookie(response: ResponseHead) -> None:
    """Caches must not give the page of one to the other (RFC 9110 §12.5.5)."""
    named = {name.strip().lower() for value in response.get_all(b"vary") for name in value.split(b",")}
    if named.isdisjoint((b"cookie", b"*")):
        response.fields.append((b"Vary", b"Cookie"))
