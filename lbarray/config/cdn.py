"""``[cdn]``: which addresses in a page are changed so that a content delivery network serves them."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, PathPrefix, Text, one_of

__all__ = ["Cdn"]


@attrs.frozen
class Cdn:
    """``[cdn]``.

    :ivar host: the network's host name, with a port where it is unusual.
    :ivar paths: prefixes of the site's paths that the network serves.
    :ivar own_hosts: host names that mean the site itself in absolute URLs, besides the one the
        request was sent to.
    :ivar attributes: of the site's own that hold addresses until a script makes use of them, such
        as ``data-src`` and ``data-srcset``, on ``img``, ``source``, ``video`` and ``audio``.
    :ivar add_crossorigin: give ``crossorigin`` to scripts and style sheets that have ``integrity``
        without it, so that they can come from the network, which must then answer with
        ``Access-Control-Allow-Origin``. Otherwise they stay where they are.
    """

    host: Text
    paths: tuple[PathPrefix, ...]
    scheme: Annotated[str, one_of("https", "http")] = "https"
    own_hosts: tuple[Text, ...] = ()
    attributes: tuple[Text, ...] = ()
    add_crossorigin: Flag = False
