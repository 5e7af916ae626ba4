"""One line for each request: ``[access_log]``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import Flag, PathText, one_of

__all__ = ["AccessLog"]


@attrs.frozen
class AccessLog:
    """``[access_log]``: written by a thread, so that no disk holds a request up; lines that the disk cannot take are
    dropped and counted (``access_log_dropped``). SIGUSR1 to the daemon opens the file anew, for logrotate.

    :ivar path: the file; ``access-NODE.log`` in ``array.state_dir`` when it is not given.
    :ivar format: ``combined``, as Apache and nginx write it, or ``json``, which has time taken, back end, service and
        host too.
    """

    enabled: Flag = True
    path: PathText | None = None
    format: Annotated[str, one_of("combined", "json")] = "combined"
