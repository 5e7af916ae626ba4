"""``[console]``: how an operator looks inside."""

from __future__ import annotations

import attrs

from lbarray.config.scalars import HostPort, HostPortText, PathText, Text

__all__ = ["Console", "Manhole"]


@attrs.frozen
class Manhole:
    """``[console.manhole]``: an interactive Python prompt over SSH, inside the daemon.

    :ivar authorized_keys: file of public keys that may enter.
    :ivar password_file: file whose first line is ``user``'s password.
    """

    listen: HostPortText = HostPort("127.0.0.1", 4722)
    user: Text = "admin"
    authorized_keys: PathText | None = None
    password_file: PathText | None = None


@attrs.frozen
class Console:
    """``[console]``.

    :ivar status: loopback address of the JSON status over HTTP; ``[console]`` without it uses the
        default.
    """

    status: HostPortText = HostPort("127.0.0.1", 9080)
    manhole: Manhole | None = None
