"""Where in HTML the URLs of static content stand (WHATWG HTML, index of attributes)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

__all__ = ["LINK_TYPES", "PLACES", "PRELOADS_LEFT", "Kind", "with_own"]


class Kind(enum.Enum):
    """What an attribute holds."""

    URL = "url"
    SRCSET = "srcset"


#: Element, then attribute, in lower case. Links that people follow (``a href``, ``form action``) are not here,
#: nor are ``use`` of SVG, ``iframe``, ``object`` and ``embed``: browsers treat what comes from another origin
#: differently there.
PLACES: Mapping[bytes, Mapping[bytes, Kind]] = {
    b"img": {b"src": Kind.URL, b"srcset": Kind.SRCSET},
    # Of SVG; in HTML it is an img that was misspelt (WHATWG HTML §13.2.6.4.7).
    b"image": {b"href": Kind.URL, b"xlink:href": Kind.URL, b"src": Kind.URL, b"srcset": Kind.SRCSET},
    b"input": {b"src": Kind.URL},
    b"script": {b"src": Kind.URL},
    b"link": {b"href": Kind.URL, b"imagesrcset": Kind.SRCSET},
    b"source": {b"src": Kind.URL, b"srcset": Kind.SRCSET},
    b"video": {b"src": Kind.URL, b"poster": Kind.URL},
    b"audio": {b"src": Kind.URL},
    b"track": {b"src": Kind.URL},
}

#: Where attributes of the site's own may stand for a standard one until a script moves them there.
_LAZY = (b"img", b"source", b"video", b"audio")

#: ``rel`` values of a ``link`` whose ``href`` is loaded; others (canonical, alternate, next) name pages. A manifest
#: is not here: what it says of the site's pages holds only when it comes from the site itself.
LINK_TYPES = frozenset(
    [
        b"stylesheet",
        b"icon",
        b"apple-touch-icon",
        b"apple-touch-icon-precomposed",
        b"mask-icon",
        b"preload",
        b"prefetch",
        b"modulepreload",
    ]
)

#: ``as`` of preloads that a script's own request takes up, or that have to come from the site: a script's URLs are
#: not ours to change, and a preload of another URL would be loaded in vain.
PRELOADS_LEFT = frozenset([b"fetch", b"document", b"iframe", b"worker", b"sharedworker", b"embed", b"object"])


def with_own(attributes: Iterable[bytes]) -> Mapping[bytes, Mapping[bytes, Kind]]:
    """:data:`PLACES` with attributes of a lazily loading site, such as ``data-src``; those that end in ``srcset``
    hold candidates."""
    kinds = {name.lower(): Kind.SRCSET if name.lower().endswith(b"srcset") else Kind.URL for name in attributes}
    return {name: {**places, **kinds} if name in _LAZY else places for name, places in PLACES.items()}
