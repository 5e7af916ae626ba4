"""``[[filters]]``: changes of responses by plug-ins."""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from lbarray.config.scalars import Name, PathPrefix, Text, between

__all__ = ["Filter"]


@attrs.frozen
class Filter:
    """``[[filters]]``: responses to requests of this host and path pass this filter; several in the order of the file,
    and the ones of ``[cdn]`` last.

    :ivar use: the name of the plug-in; ``lbarray filters`` lists those that are installed.
    :ivar host: a name, ``*.example.net`` or ``*``.
    :ivar options: what the plug-in wants to know; its documentation says.
    :ivar max_size: octets of content that a filter may have as a tree; larger content passes it unchanged.
    """

    use: Name
    host: Text = "*"
    path: PathPrefix = "/"
    options: dict[str, Any] = attrs.field(factory=dict)
    max_size: Annotated[int, between(1, 1 << 30)] = 1 << 20
