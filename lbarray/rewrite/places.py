"""Where in HTML the URLs of static content stand (WHATWG HTML, index of attributes)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import attrs

__all__ = ["LINK_TYPES", "PRELOADS_LEFT", "Kind", "Places", "places"]


class Kind(enum.Enum):
    """What an attribute holds."""

    URL = "url"
    SRCSET = "srcset"
    STYLE = "style"


_URL, _SRCSET = Kind.URL, Kind.SRCSET

#: Element, then attribute, in lower case. Links that people follow (``a href``, ``form action``) are not here,
#: nor are ``use`` of SVG and ``iframe``: browsers treat what comes from another origin differently there.
_PLACES: Mapping[bytes, Mapping[bytes, Kind]] = {
    b"img": {b"src": _URL, b"srcset": _SRCSET},
    b"image": {b"src": _URL, b"srcset": _SRCSET},  # an img that was misspelt (WHATWG HTML §13.2.6.4.7)
    b"input": {b"src": _URL},
    b"script": {b"src": _URL},
    b"link": {b"href": _URL, b"imagesrcset": _SRCSET},
    b"source": {b"src": _URL, b"srcset": _SRCSET},
    b"video": {b"src": _URL, b"poster": _URL},
    b"audio": {b"src": _URL},
    b"track": {b"src": _URL},
}
_HREF = {b"href": _URL, b"xlink:href": _URL}
_SVG: Mapping[bytes, Mapping[bytes, Kind]] = {b"image": _HREF, b"feimage": _HREF, b"script": _HREF}
#: Plug-in content: what is in it cannot reach the page when it comes from another origin.
_EMBEDS: Mapping[bytes, Mapping[bytes, Kind]] = {b"object": {b"data": _URL}, b"embed": {b"src": _URL}}

#: On every element; ``background`` is obsolete, but browsers still load it.
_EVERYWHERE: Mapping[bytes, Kind] = {b"background": _URL}
_STYLE: Mapping[bytes, Kind] = {b"style": Kind.STYLE}

#: ``rel`` values of a ``link`` whose ``href`` is loaded; others (canonical, alternate, next) name pages. A manifest
#: is not here: what it says of the site's pages holds only when it comes from the site itself.
LINK_TYPES = frozenset(
    [
        b"stylesheet",
        b"icon",
        b"apple-touch-icon",
        b"apple-touch-icon-precomposed",
        b"apple-touch-startup-image",
        b"mask-icon",
        b"preload",
        b"prefetch",
        b"modulepreload",
    ]
)

#: ``as`` of preloads that a script's own request takes up, or that have to come from the site: a script's URLs are
#: not ours to change, and a preload of another URL would be loaded in vain.
PRELOADS_LEFT = frozenset([b"fetch", b"document", b"iframe", b"worker", b"sharedworker", b"embed", b"object"])


@attrs.frozen
class Places:
    """Which attributes to look at.

    :ivar elements: of HTML; each mapping has the attributes of ``everywhere`` too.
    :ivar svg: the same of SVG.
    :ivar everywhere: attributes of any element.
    """

    elements: Mapping[bytes, Mapping[bytes, Kind]]
    svg: Mapping[bytes, Mapping[bytes, Kind]]
    everywhere: Mapping[bytes, Kind]

    def of(self, element: bytes) -> Mapping[bytes, Kind]:
        """The attributes of this element, lower case, that may hold URLs."""
        return self.elements.get(element, self.everywhere)

    def of_svg(self, element: bytes) -> Mapping[bytes, Kind]:
        """The same of an element of SVG or MathML."""
        return self.svg.get(element, self.everywhere)


def places(attributes: Iterable[bytes] = (), *, css: bool = True, embeds: bool = False) -> Places:
    """The standard's places and the site's own.

    :param attributes: of lazily loading sites, until a script makes use of them: ``data-src``, on any element, or
        ``a@href``, on that one; those that end in ``srcset`` hold candidates.
    :param css: also style sheets within attributes.
    :param embeds: also ``object`` and ``embed``.
    """
    everywhere = {**_EVERYWHERE, **(_STYLE if css else {})}
    elements = {name: dict(kinds) for name, kinds in {**_PLACES, **(_EMBEDS if embeds else {})}.items()}
    for written in attributes:
        element, _, name = written.lower().rpartition(b"@")
        kind = _SRCSET if name.endswith(b"srcset") else _URL
        (elements.setdefault(element, {}) if element else everywhere)[name] = kind
    return Places(
        {name: {**everywhere, **kinds} for name, kinds in elements.items()},
        {name: {**everywhere, **kinds} for name, kinds in _SVG.items()},
        everywhere,
    )
