"""``[console]``: how an operator looks inside."""

from __future__ import annotations

import attrs

from lbarray.config.scalars import HostPort, HostPortText, PathText, Text

__all__ = ["Console", "ConsoleTls", "Manhole"]


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
class ConsoleTls:
    """``[console.tls]``: the HTTP API over TLS, needed as soon as others than this machine can reach it.

    :ivar certificate: PEM, the certificate first, then its chain. :ivar key: PEM.
    :ivar client_ca: PEM of the authorities whose client certificates may read and change everything, as the token may.
    """

    certificate: PathText
    key: PathText
    client_ca: PathText | None = None


@attrs.frozen
class Console:
    """``[console]``.

    Whoever may open the node's Unix socket, ``NODE.sock`` in ``array.state_dir`` (its owner and root), may do
    everything; ``lbarray status`` and the other commands use it.

    :ivar status: address of the HTTP API over TCP, which whoever is on this machine may read. Other addresses than
        loopback need ``tls``, and a token or a client certificate for every request.
    :ivar token_file: file whose first line lets its bearer change things over TCP
        (``Authorization: Bearer``); without it, changes go over the Unix socket only.
    """

    status: HostPortText = HostPort("127.0.0.1", 9080)
    token_file: PathText | None = None
    tls: ConsoleTls | None = None
    manhole: Manhole | None = None
