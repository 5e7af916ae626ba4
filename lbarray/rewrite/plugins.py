"""For authors of filters: what a filter is told, and how those that are installed are found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from twisted.plugin import getPlugins

from lbarray.errors import BadConfig, Problem
from lbarray.http.events import RequestHead
from lbarray.interfaces import IRewriteFilterFactory
from lbarray.values import ClientAddress

__all__ = ["PageContext", "factories", "make_filter"]


@attrs.frozen
class PageContext:
    """Who asked for what.

    :ivar request: as it went to the back end.
    :ivar charset: of the response by its Content-Type; ``""`` where that says nothing.
    """

    request: RequestHead
    client: ClientAddress
    charset: str = ""


def factories() -> dict[str, Any]:
    """Every installed :class:`lbarray.interfaces.IRewriteFilterFactory`, by its name."""
    return {factory.name: factory for factory in getPlugins(IRewriteFilterFactory)}


def make_filter(use: str, options: Mapping[str, object], key: str) -> Any:
    """A filter of the plug-in of this name.

    :param key: where the configuration asks for it.
    :raises BadConfig: there is no such plug-in, or it does not accept the options.
    """
    known = factories()
    if use not in known:
        names = ", ".join(sorted(known)) or "none is installed"
        raise BadConfig([Problem(f"{key}.use", f'"{use}"', f"the name of an installed filter: {names}")])
    try:
        return known[use].filter(options)
    except ValueError as error:
        raise BadConfig([Problem(f"{key}.options", str(dict(options)), str(error))]) from None
