"""``[log]``: what the daemon writes about itself."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import one_of

__all__ = ["Log"]


@attrs.frozen
class Log:
    """``[log]``: one line for each event that an operator would care about, to standard output (the journal).

    :ivar format: ``text`` for people; ``json``: one object a line with ``at`` (UTC), ``level``, ``room``, ``text`` and
        the event's values.
    :ivar level: the lowest level that is written.
    """

    format: Annotated[str, one_of("text", "json")] = "text"
    level: Annotated[str, one_of("debug", "info", "warn", "error")] = "info"
