"""Where in HTML the URLs of static content stand (WHATWG HTML, index of attributes)."""

from __future__ import annotations

import enum

__all__ = ["LINK_TYPES", "PLACES", "Kind"]


class Kind(enum.Enum):
    """What an attribute holds."""

    URL = "url"
    SRCSET = "srcset"


#: Element, then attribute, in lower case. Links that people follow (``a href``, ``form action``) are not here.
PLACES: dict[bytes, dict[bytes, Kind]] = {
    b"img": {b"src": Kind.URL, b"srcset": Kind.SRCSET},
    b"script": {b"src": Kind.URL},
    b"link": {b"href": Kind.URL, b"imagesrcset": Kind.SRCSET},
    b"source": {b"src": Kind.URL, b"srcset": Kind.SRCSET},
    b"video": {b"src": Kind.URL, b"poster": Kind.URL},
    b"audio": {b"src": Kind.URL},
    b"track": {b"src": Kind.URL},
}

#: ``rel`` values of a ``link`` whose ``href`` is loaded; others (canonical, alternate, next) name pages.
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
        b"manifest",
    ]
)
