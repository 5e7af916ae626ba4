"""Which URLs of a page are the site's own (RFC 3986 §5; WHATWG URL where browsers differ)."""

from __future__ import annotations

import re
from collections.abc import Collection

import attrs

__all__ = ["Page", "based", "own_path", "without_dots"]

#: Tabs, line ends, backslashes and others that browsers drop or turn round in URLs: what they make of such a
#: URL depends on details, so it stays as it is.
ODD = re.compile(rb"[\x00-\x20\\\x7f]")
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


def own_path(url: bytes, page: Page, own_hosts: Collection[bytes]) -> bytes | None:
    """The absolute path, with query and fragment, if the URL is the site's own.

    :param own_hosts: names that mean the site, besides the one the page was asked from.
    """
    if url.startswith(b"//"):
        return _after_authority(b"https", url[2:], page, own_hosts)
    if url.startswith(b"/"):
        return None if page.foreign else url
    scheme = _SCHEME.match(url)
    if scheme is None:
        return None if page.foreign else page.path[: page.path.rfind(b"/") + 1] + url
    name = scheme.group()[:-1].lower()
    if name not in _PORTS or url[scheme.end() : scheme.end() + 2] != b"//":
        return None
    return _after_authority(name, url[scheme.end() + 2 :], page, own_hosts)


def _after_authority(scheme: bytes, rest: bytes, page: Page, own_hosts: Collection[bytes]) -> bytes | None:
    authority, slash, path = rest.partition(b"/")
    name = authority.lower().removesuffix(_PORTS[scheme])
    if not slash or (name not in own_hosts and name != page.host):
        return None
    return b"/" + path


def based(href: bytes, page: Page, own_hosts: Collection[bytes]) -> Page:
    """The page's new start for relative URLs after ``<base href>`` (WHATWG HTML §4.2.3)."""
    if ODD.search(href):
        return Page(page.host, page.path, True)
    if href.startswith(b"//") or _SCHEME.match(href):
        whole = href if b"/" in href.partition(b"//")[2] else href + b"/"
        path = own_path(whole, page, own_hosts)
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
