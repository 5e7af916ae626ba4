"""What becomes of a URL: the CDN's, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from lbarray.rewrite.csp import permits
from lbarray.rewrite.selection import Selection, glob, media_types
from lbarray.rewrite.urls import ODD, Page, based, own_path, without_dots

__all__ = ["CdnRules", "Page"]

#: Single URLs of pages of which the result is kept: all that one page has, many times over.
KEPT_URLS = 16384
Key = tuple[bytes, bytes]
Kept = tuple[int, int, bytes] | tuple[()]


class CdnRules:
    """Which content moves, and to which of the CDN's hosts.

    With several hosts each path has one of them, the same at every node: the highest of the hashes of path and host
    (rendezvous hashing, Thaler and Ravishankar 1998), so that when a host fails only its own paths move.

    :param hosts: of the CDN, with port where it is unusual.
    :param scheme: ``https``, ``http``, or ``""``: the page's own (RFC 3986 §4.2).
    :param paths: prefixes, such as ``/static/``; ``globs`` such as ``/media/**.jpg``.
    :param own_hosts: names that mean the site, besides the one a page was asked from.
    :param version: added to the query of what moves, as ``v=``.
    :param attributes: of the site's own that hold URLs until a script makes use of them, such as ``data-src``.
    :param add_crossorigin: give it to scripts and style sheets with ``integrity`` that lack it, and move them;
        the CDN must then answer with CORS fields. Otherwise they stay.
    :ivar digest: of all this and of the hosts that live: pages made by other rules are other pages.
    :ivar generation: counts what was learnt since.
    :ivar known: what became of URLs as they are written in elements, where that depends on nothing else.
    """

    def __init__(
        self,
        *,
        hosts: Sequence[str],
        scheme: str = "https",
        paths: Sequence[str] = (),
        globs: Sequence[str] = (),
        extensions: Sequence[str] = (),
        exclude: Sequence[str] = (),
        types: Sequence[str] = (),
        min_size: int = 0,
        max_size: int = 0,
        own_hosts: Sequence[str] = (),
        version: str = "",
        attributes: Sequence[str] = (),
        css: bool = True,
        embeds: bool = False,
        metas: bool = False,
        import_maps: bool = False,
        add_crossorigin: bool = False,
    ) -> None:
        self._scheme = scheme
        prefix = f"{scheme}://" if scheme else "//"
        self.hosts = tuple(hosts)
        self.origins = tuple((prefix + host).encode() for host in hosts)
        self.attributes = tuple(sorted(name.lower().encode() for name in attributes))
        self.css = css
        self.embeds = embeds
        self.metas = metas
        self.import_maps = import_maps
        self.add_crossorigin = add_crossorigin
        self.selection = Selection(
            paths=tuple(path.encode() for path in paths),
            globs=tuple(glob(pattern) for pattern in globs),
            extensions=frozenset(name.lower().lstrip(".").encode() for name in extensions),
            exclude=tuple(glob(pattern) for pattern in exclude),
            types=media_types(types),
            min_size=min_size,
            max_size=max_size,
        )
        self._own = frozenset(name.lower().encode() for name in own_hosts)
        self._version = b"v=" + version.encode() if version else b""
        self._alive = self.origins
        self.known: Mapping[Key, Kept] = {}
        self._known: dict[Key, Kept] = {}
        given = (hosts, scheme, paths, globs, extensions, exclude, types, min_size, max_size, own_hosts, version)
        self.generation = 0
        self._given = repr((given, attributes, css, embeds, metas, import_maps, add_crossorigin)).encode()
        self._forget()

    def _forget(self) -> None:
        """Pages begun before go on with what they have."""
        self.known = self._known = {}
        self.digest = hashlib.blake2b(self._given + b"".join(self._alive), digest_size=4).hexdigest().encode()

    def keep(self, key: Key, change: Kept) -> None:
        """Remember what became of a URL as it is written in an element."""
        if len(self._known) >= KEPT_URLS:
            self._known.clear()
        self._known[key] = change

    @property
    def alive(self) -> Sequence[bytes]:
        """Origins that URLs are written to."""
        return self._alive

    def set_alive(self, hosts: Sequence[str]) -> None:
        """From now on URLs are written to these of the hosts only."""
        alive = tuple(origin for host, origin in zip(self.hosts, self.origins, strict=True) if host in hosts)
        if alive != self._alive:
            self._alive = alive
            self._forget()

    def learn(self, path: bytes, media_type: bytes, size: int) -> None:
        """A response told what is behind a path of the site."""
        if self.selection.learns and self.selection.learnt.learn(path, media_type, size):
            self._forget_urls()

    def _forget_urls(self) -> None:
        self.known = self._known = {}
        self.generation += 1

    def permitted_by(self, policies: Sequence[bytes]) -> bool:
        """These Content-Security-Policy values let a page load what the CDN serves."""
        if not policies:
            return True
        return all(permits(policies, self.absolute(origin), self.prefixes) for origin in self._alive)

    @property
    def prefixes(self) -> Sequence[bytes]:
        """What the paths of all that moves begin with."""
        return self.selection.paths if not self.selection.globs else (b"/",)

    def absolute(self, url: bytes) -> bytes:
        """With a scheme, for those who read a page's URLs without the page."""
        return b"https:" + url if url.startswith(b"//") else url

    def origin_of(self, path: bytes) -> bytes | None:
        """The CDN's for this path; ``None``: no host of it lives."""
        alive = self._alive
        if len(alive) < 2:
            return alive[0] if alive else None
        return max(alive, key=lambda origin: hashlib.blake2b(path, key=origin[-64:], digest_size=8).digest())

    def moved(self, url: bytes, page: Page) -> bytes | None:
        """The CDN's URL for a URL of ``page``, or ``None``: it stays as it is.

        Query and fragment stay; ``data:``, other sites, fragments alone and the like are not ours.
        """
        if not url or url[0] in b"#?" or ODD.search(url):
            return None
        found = own_path(url, page, self._own)
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
        if path not in self.selection:
            return None
        origin = self.origin_of(path)
        if origin is None:
            return None
        if self._version:
            query, mark, fragment = rest.partition(b"#")
            rest = query + (b"&" if query else b"?") + self._version + mark + fragment
        return origin + path + rest

    def based(self, href: bytes, page: Page) -> Page:
        """The page's new start for relative URLs after ``<base href>``."""
        return based(href, page, self._own)

    def is_own(self, host: bytes) -> bool:
        """A name of the site, of those configured."""
        return host in self._own
