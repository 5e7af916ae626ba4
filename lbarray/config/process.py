"""``[process]``: the daemon as a process."""

from __future__ import annotations

import attrs

from lbarray.config.scalars import Text

__all__ = ["Process"]


@attrs.frozen
class Process:
    """``[process]``.

    :ivar user: a node that is started as root becomes this user before it does anything else, and keeps only the
        capabilities that it needs (``CAP_NET_ADMIN``, ``CAP_NET_RAW``, ``CAP_BPF``, ``CAP_PERFMON``,
        ``CAP_NET_BIND_SERVICE``; standalone only the last). ``array.state_dir`` becomes the user's. Keys and
        certificates must be readable by one of its groups. Not needed under systemd, whose unit does the same.
    """

    user: Text | None = None
