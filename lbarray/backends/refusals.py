"""Why a request gets no back end, and an operator no answer."""

from __future__ import annotations

from lbarray.errors import ArrayError, BadInput

__all__ = ["NoRoom", "NoRoute", "NobodyServes", "QueueDisplaced", "QueueTimeout", "TooLarge", "UnknownBackend"]


class NoRoute(BadInput):
    """No route holds for the request."""

    reason = "no_route"
    status = 404


class NobodyServes(BadInput):
    """The pool has no back end that may have the request."""

    reason = "no_backend"
    status = 503
    answer_fields = ((b"Retry-After", b"2"),)


class NoRoom(BadInput):
    """Every back end of the pool has as many requests as it may have, and nothing may wait."""

    reason = "backend_full"
    status = 503
    answer_fields = ((b"Retry-After", b"1"),)


class TooLarge(BadInput):
    """The request's content is longer than its route allows."""

    reason = "route_max_body"
    status = 413


class UnknownBackend(ArrayError):
    """There is no such pool or back end."""


class QueueTimeout(BadInput):
    """No back end had room in time."""

    reason = "queue_timeout"
    status = 503
    answer_fields = ((b"Retry-After", b"1"),)


class QueueDisplaced(BadInput):
    """A request of higher priority took the place in the full queue."""

    reason = "queue_displaced"
    status = 503
    answer_fields = ((b"Retry-After", b"1"),)
