"""Which URLs of a page the CDN serves, and what they become (RFC 3986 §5; WHATWG URL where browsers differ)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from lbarray.rewrite.csp import permits

__all__ = ["CdnRules", "Page"]

#: Tabs, line ends, backslashes and others that browsers drop or turn round in URLs: what they make of such a
#: URL depends on details, so it stays as it is.
_ODD = re.compile(rb"[\x00-\x20\\\x7f]")
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:")
_PORTS = {b"http": b":80", b"https": b":443"}


@attrs.define
class Page:
    """What relative URLs of one page start from.

    :ivar host: of the request, lower case, without port.
    :ivar path: of the request, or of ``<base href>``.
    :ivar foreign: ``<base href>`` points to another site: relative URLs are not ours.
    """

    host: bytes
    path: bytes
    foreign: bool = False


class CdnRules:
    """Prefixes of the site's paths that the CDN serves.

    :param host: of the CDN, with port where it is unusual.
    :param paths: prefixes, such as ``/static/``.
    :param own_hosts: names that mean the site, besides the one a page was asked from.
    :param attributes: of the site's own that hold URLs until a script makes use of them, such as ``data-src``.
    :param add_crossorigin: give it to scripts and style sheets with ``integrity`` that lack it, and move them;
        the CDN must then answer with CORS fields. Otherwise they stay.
    """

    def __init__(
        self,
        *,
        host: str,
        scheme: str,
        paths: Sequence[str],
        own_hosts: Sequence[str] = (),
        attributes: Sequence[str] = (),
        add_crossorigin: bool = False,
    ) -> None:
        self.origin = f"{scheme}://{host}".encode()
        self.attributes = tuple(sorted(name.lower().encode() for name in attributes))
        self.add_crossorigin = add_crossorigin
        self._paths = tuple(path.encode() for path in paths)
        self._own = frozenset(name.lower().encode() for name in own_hosts)

    def _is_own(self, scheme: bytes, authority: bytes, page: Page) -> bool:
        name = authority.lower()
        name = name.removesuffix(_PORTS.get(scheme, b":443"))
        return name in self._own or name == page.host

    def permitted_by(self, policies: Sequence[bytes]) -> bool:
        """These Content-Security-Policy values let a page load what the CDN serves."""
        return not policies or permits(policies, self.origin, self._paths)

    def moved(self, url: bytes, page: Page) -> bytes | None:
        """The CDN's URL for a URL of ``page``, or ``None``: it stays as it is.

        Query and fragment stay; ``data:``, other sites, fragments alone and the like are not ours.
        """
        if not url or url[0] in b"#?" or _ODD.search(url):
            return None
        if url.startswith(self._paths) and not page.foreign and b"/." not in url and b"/%" not in url:
            return self.origin + url  # most are written like this
        found = self._path_of(url, page)
        if found is None:
            return None
        end = len(found)
        for mark in (b"?", b"#"):
            at = found.find(mark)
            if 0 <= at < end:
                end = at
        path, rest = found[:end], found[end:]
        if b"/." in path or b"/%2" in path:
            path = without_dots(path)
        if path.startswith(self._paths):
            return self.origin + path + rest
        return None

    def _path_of(self, url: bytes, page: Page) -> bytes | None:
        """The absolute path, with query and fragment, if the URL is the site's own."""
        if url.startswith(b"//"):
            return self._after_authority(b"https", url[2:], page)
        if url.startswith(b"/"):
            return None if page.foreign else url
        scheme = _SCHEME.match(url)
        if scheme is None:
            return None if page.foreign else page.path[: page.path.rfind(b"/") + 1] + url
        name = scheme.group()[:-1].lower()
        if name not in (b"http", b"https") or url[scheme.end() : scheme.end() + 2] != b"//":
            return None
        return self._after_authority(name, url[scheme.end() + 2 :], page)

    def _after_authority(self, scheme: bytes, rest: bytes, page: Page) -> bytes | None:
        authority, slash, path = rest.partition(b"/")
        if not slash or not self._is_own(scheme, authority, page):
            return None
        return b"/" + path

    def based(self, href: bytes, page: Page) -> Page:
        """The page's new start for relative URLs after ``<base href>`` (WHATWG HTML §4.2.3)."""
        if _ODD.search(href):
            return Page(page.host, page.path, True)
        if href.startswith(b"//") or _SCHEME.match(href):
            path = self._path_of(href if b"/" in href.partition(b"//")[2] else href + b"/", page)
            if path is None:
                return Page(page.host, page.path, True)
        elif href.startswith(b"/"):
            path = href
        else:
            path = page.path[: page.path.rfind(b"/") + 1] + href
        return Page(page.host, path.partition(b"?")[0].partition(b"#")[0], False)


def without_dots(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 §5.2.4), written plainly or as ``%2e``."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for place, segment in enumerate(segments):
        plain = segment.lower().replace(b"%2e", b".")
        last = place == len(segments) - 1
        if plain == b"..":
            if kept:
                kept.pop()
            if last:
                kept.append(b"")
        elif plain == b".":
            if last:
                kept.append(b"")
        else:
            kept.append(segment)
    return b"/" + b"/".join(kept)
