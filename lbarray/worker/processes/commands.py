"""What the node process and its worker processes say to each other: AMP over a socket pair."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from twisted.protocols import amp

__all__ = [
    "Changes",
    "Configure",
    "Followed",
    "Listen",
    "Measure",
    "Pieces",
    "Ready",
    "Refused",
    "Reload",
    "Reopen",
    "Report",
    "Said",
    "Stop",
    "chunks",
    "pieces",
]

#: AMP's limit for a value is 65,535 octets.
_CHUNK = 60_000


class Ready(amp.Command):
    """Worker to node: it serves."""

    requiresAnswer = False


class Refused(amp.Command):
    """Worker to node: it cannot serve, and ends."""

    arguments = [(b"why", amp.Unicode())]
    requiresAnswer = False


class Report(amp.Command):
    """Worker to node: a piece of its report; see :func:`chunks`."""

    arguments = [(b"piece", amp.String()), (b"last", amp.Boolean())]
    requiresAnswer = False


class Said(amp.Command):
    """Worker to node: a line for the log, which only the node process writes."""

    arguments = [(b"level", amp.Unicode()), (b"namespace", amp.Unicode()), (b"text", amp.Unicode())]
    requiresAnswer = False


class Changes(amp.Command):
    """Both ways: a piece of a list of changes of the back ends (``BackendsService.subscribe`` and ``hear``)."""

    arguments = [(b"piece", amp.String()), (b"last", amp.Boolean())]
    requiresAnswer = False


class Listen(amp.Command):
    """Node to worker: the listening socket of a service that comes with the configuration after it."""

    arguments = [(b"address", amp.Unicode()), (b"port", amp.Integer()), (b"listener", amp.Descriptor())]
    requiresAnswer = False


class Configure(amp.Command):
    """Node to worker: a piece of another configuration to serve by, as the one that it was started with."""

    arguments = [(b"piece", amp.String()), (b"last", amp.Boolean())]
    requiresAnswer = False


class Followed(amp.Command):
    """Worker to node: it serves by the configuration that it was given last; ``why`` not, if it cannot."""

    arguments = [(b"why", amp.Unicode())]
    requiresAnswer = False


class Measure(amp.Command):
    """Node to worker: report now. Answered after the report."""


class Stop(amp.Command):
    """Node to worker: accept nobody any more, end the requests in hand, and go."""

    requiresAnswer = False


class Reload(amp.Command):
    """Node to worker: read the certificates anew."""

    requiresAnswer = False


class Reopen(amp.Command):
    """Node to worker: the access log was renamed."""

    requiresAnswer = False


def chunks(value: object) -> Iterator[dict[str, object]]:
    """Any JSON value as the arguments of one or several commands."""
    return pieces(zlib.compress(json.dumps(value, separators=(",", ":"), default=str).encode(), 1))


def pieces(octets: bytes) -> Iterator[dict[str, object]]:
    """Any octets as the arguments of one or several commands."""
    for at in range(0, len(octets), _CHUNK):
        yield {"piece": octets[at : at + _CHUNK], "last": at + _CHUNK >= len(octets)}


class Pieces:
    """Pieces of one kind of command back to the values."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, piece: bytes, last: bool) -> Any:
        """One more piece of a JSON value: the value with the last one, ``None`` before."""
        octets = self.octets(piece, last)
        return None if octets is None else json.loads(zlib.decompress(octets))

    def octets(self, piece: bytes, last: bool) -> bytes | None:
        """One more piece: all octets with the last one, ``None`` before."""
        self._pieces.append(piece)
        if not last:
            return None
        octets, self._pieces = b"".join(self._pieces), []
        return octets
