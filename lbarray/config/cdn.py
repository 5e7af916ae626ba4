"""``[cdn]``: which addresses in a page are changed so that a content delivery network serves them."""

from __future__ import annotations

import re
from typing import Annotated

import attrs

from lbarray.config.scalars import Accepts, Flag, Name, PathPrefix, Seconds, Text, between, one_of

__all__ = ["Cdn", "CdnCheck", "CdnPages"]

_QUERY_WORD = re.compile(r"[A-Za-z0-9._~-]{1,64}\Z")


def _query_word(found: object) -> str:
    if not isinstance(found, str) or not _QUERY_WORD.match(found):
        raise ValueError(found)
    return found


def _share(found: object) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 100:
        raise ValueError(found)
    return float(found)


def _pattern(found: object) -> str:
    if not isinstance(found, str) or not found.startswith("/"):
        raise ValueError(found)
    return found


QueryWord = Annotated[str, Accepts(_query_word, "1 to 64 letters, digits, '.', '_', '~' or '-'")]
Percent = Annotated[float, Accepts(_share, "0 to 100")]
Pattern = Annotated[str, Accepts(_pattern, 'a pattern that begins with "/", such as "/media/**.jpg"')]
Octets = Annotated[int, between(0, 1 << 40)]


@attrs.frozen
class CdnCheck:
    """``[cdn.check]``: how each node finds out whether a host of the network lives. Without it every host does.

    :ivar path: what is asked for, of each host.
    :ivar expect: lowest and highest status that count as well.
    :ivar fall: failures in a row until nothing is written to the host; ``rise``: successes until it is again.
    :ivar connect: where to connect instead of the host's own address, such as an edge nearby.
    """

    path: PathPrefix = "/"
    expect: tuple[Annotated[int, between(100, 599)], Annotated[int, between(100, 599)]] = (200, 399)
    interval: Seconds = 2.0
    timeout: Seconds = 2.0
    rise: Annotated[int, between(1, 100)] = 2
    fall: Annotated[int, between(1, 100)] = 2
    connect: Text | None = None


@attrs.frozen
class CdnPages:
    """``[[cdn.pages]]``: whether the pages of this host and path are rewritten. The most exact entry wins; pages that
    none speaks of are rewritten.

    :ivar host: a name, ``*.example.net`` or ``*``.
    :ivar percent: of the clients, by their addresses: the same ones at every node and each time.
    """

    host: Text = "*"
    path: PathPrefix = "/"
    rewrite: Flag = True
    percent: Percent = 100.0


@attrs.frozen
class Cdn:
    """``[cdn]``.

    What the network serves is what fits all of these keys:

    :ivar paths: prefixes of the site's paths; and ``globs``: patterns such as ``/media/**.jpg``, where ``*`` does not
        cross a slash and ``**`` does. One of all these must fit.
    :ivar extensions: when given, the path ends in one of them, such as ``png``.
    :ivar exclude: patterns of what stays.
    :ivar types: when given, media types such as ``image/*``; each node learns what is behind a path from the
        responses that pass it, and leaves the path alone before.
    :ivar min_size: octets, learnt likewise; and ``max_size``, 0 for no limit.

    Where it goes:

    :ivar host: the network's host name, with a port where it is unusual; or, for several of them, ``hosts``: each
        path always goes to the same one.
    :ivar scheme: ``relative`` keeps the page's own (``//host/path``).
    :ivar version: added to the query of every address as ``v=``, to make a new one of it.
    :ivar own_hosts: host names that mean the site itself in absolute URLs, besides the one the
        request was sent to.

    In which places of a page, besides the standard ones:

    :ivar attributes: of the site's own that hold addresses until a script makes use of them, such
        as ``data-src`` and ``data-srcset``; ``a@href`` for one element only.
    :ivar css: style sheets: in attributes, in pages, and as files.
    :ivar link_fields: ``Link`` fields that preload.
    :ivar embeds: ``object`` and ``embed``, which cannot reach the page from elsewhere.
    :ivar metas: ``meta`` elements that refresh, and those of Open Graph and others that name a picture.
    :ivar import_maps: the import maps of scripts.
    :ivar manifests: the icons and screenshots in web application manifests.
    :ivar location: ``Location`` fields of redirects to what the network serves.

    For whom:

    :ivar percent: of the clients, by their addresses, for a careful beginning.
    :ivar skip_cookies: who carries one of these cookies gets the pages as they are: people who are logged in.

    What else:

    :ivar csp: what to do when a page's ``Content-Security-Policy`` would keep the browser from the network: ``leave``
        the page, or ``amend`` the policy.
    :ivar add_crossorigin: give ``crossorigin`` to scripts and style sheets that have ``integrity``
        without it, so that they can come from the network, which must then answer with
        ``Access-Control-Allow-Origin``. Otherwise they stay where they are.
    :ivar memo: octets of memory for recent results, so that a page that comes again costs little; 0 for none.
    """

    host: Text | None = None
    hosts: tuple[Text, ...] = ()
    paths: tuple[PathPrefix, ...] = ()
    globs: tuple[Pattern, ...] = ()
    extensions: tuple[Name, ...] = ()
    exclude: tuple[Pattern, ...] = ()
    types: tuple[Text, ...] = ()
    min_size: Octets = 0
    max_size: Octets = 0
    scheme: Annotated[str, one_of("https", "http", "relative")] = "https"
    version: QueryWord | None = None
    own_hosts: tuple[Text, ...] = ()
    attributes: tuple[Text, ...] = ()
    css: Flag = True
    link_fields: Flag = True
    embeds: Flag = False
    metas: Flag = False
    import_maps: Flag = False
    manifests: Flag = False
    location: Flag = False
    percent: Percent = 100.0
    skip_cookies: tuple[Name, ...] = ()
    csp: Annotated[str, one_of("leave", "amend")] = "leave"
    add_crossorigin: Flag = False
    memo: Octets = 32 << 20
    pages: tuple[CdnPages, ...] = ()
    check: CdnCheck | None = None

    @property
    def every_host(self) -> tuple[str, ...]:
        """``host`` or ``hosts``."""
        return (self.host,) if self.host else self.hosts
