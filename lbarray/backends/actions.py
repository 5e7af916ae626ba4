"""What a route does with its requests: to a pool, to one of several, elsewhere, or an answer; and what it changes."""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import attrs

from lbarray.backends.keys import address_key
from lbarray.backends.matching import pattern
from lbarray.backends.ring import hashed
from lbarray.http.events import Fields, Head, OwnAnswer, RequestHead, ResponseHead
from lbarray.values import ClientAddress, Handling

__all__ = ["FieldEdits", "Mirror", "Redirect", "Rewrite", "Route", "Split", "Template"]


#: A request that may be repeated is, when its back end dies: without that each death would cost those in hand.
USUAL = Handling(retry_broken=True)


class Template:
    """Text with ``{scheme}``, ``{host}``, ``{path}``, ``{query}``, ``{target}`` and ``{client}`` of a request.

    :raises ValueError: another name stands between braces.
    """

    NAMES = ("scheme", "host", "path", "query", "target", "client")

    def __init__(self, text: str) -> None:
        parts = re.split(r"\{([a-z]*)\}", text)
        for name in parts[1::2]:
            if name not in self.NAMES:
                raise ValueError(f"{{{name}}} is none of {', '.join(self.NAMES)}")
        self._parts = [part.encode() for part in parts]
        self.constant = self._parts[0] if len(self._parts) == 1 else None

    def of(self, request: RequestHead, client: ClientAddress) -> bytes:
        """The text for this request."""
        if self.constant is not None:
            return self.constant
        path, _, query = request.target.partition(b"?")
        values = {
            b"scheme": b"https" if client.tls else b"http",
            b"host": request.host,
            b"path": path,
            b"query": query,
            b"target": request.target,
            b"client": client.host.encode(),
        }
        return b"".join(values[part] if place % 2 else part for place, part in enumerate(self._parts))


@attrs.frozen
class Redirect:
    """Send the client elsewhere. ``to``: the Location; a target of two slashes cannot turn it to another host."""

    to: Template
    status: int = 308

    def answer(self, request: RequestHead, client: ClientAddress) -> OwnAnswer:
        """The response."""
        place = self.to.of(request, client)
        if place.startswith(b"//"):  # a path that a browser would take for a host: an open redirect
            place = b"/" + place.lstrip(b"/")
        return OwnAnswer(self.status, ((b"Location", place),))


class Split:
    """Several pools by weight, for a new version that gets a few requests first.

    :param sticky: a client's address decides, so that it does not go to and fro; the same on every node.
    :ivar names: of the pools.
    """

    def __init__(self, weights: Mapping[str, int], *, sticky: bool, seed: bytes, chance: Any) -> None:
        self.names = tuple(weights)
        self._sums = list(accumulate(weights.values()))
        self._sticky = sticky
        self._seed = seed[:64]
        self._random: Callable[[], float] = chance.random

    def choose(self, client: ClientAddress) -> Iterator[str]:
        """The pool's name, then those of the others: for when it has nobody."""
        if self._sticky:
            at = float(hashed(address_key(client.host, 32, 64), self._seed) % self._sums[-1])
        else:
            at = self._random() * self._sums[-1]
        chosen = self.names[min(bisect(self._sums, at), len(self.names) - 1)]
        yield chosen
        yield from (name for name in self.names if name != chosen)


@attrs.frozen
class Mirror:
    """A copy of ``percent`` of the requests goes to ``pool``, and its answers go nowhere."""

    pool: str
    percent: float = 100.0


class Rewrite:
    """Another path for the back end.

    :param prefix: takes the place of what ``matched``, the route's own prefix; or
    :param regex: what it finds in the path is replaced by ``to``, in which ``\\1`` is its first group.
    :raises ValueError: ``regex`` is none.
    """

    def __init__(
        self, *, matched: str = "/", prefix: str | None = None, regex: str | None = None, to: str = ""
    ) -> None:
        self._matched = matched.encode().rstrip(b"/")
        self._prefix = None if prefix is None else prefix.encode().rstrip(b"/")
        self._pattern = None if regex is None else pattern(regex)
        self._to = to.encode()

    def target(self, target: bytes) -> bytes:
        """What the back end is asked for. The query stays; ``*`` stays."""
        path, mark, query = target.partition(b"?")
        if path == b"*":
            return target
        if self._pattern is not None:
            path = self._pattern.sub(self._to, path, 1)
        elif self._prefix is not None and path.startswith(self._matched):
            path = self._prefix + path[len(self._matched) :]
        return (path if path.startswith(b"/") else b"/" + path) + mark + query


class FieldEdits:
    """Header fields to take out, to set (whatever was there goes) and to add, in this order."""

    def __init__(
        self,
        *,
        remove: Sequence[str] = (),
        set_to: Mapping[str, Template] | None = None,
        add: Mapping[str, Template] | None = None,
    ) -> None:
        self._set = {name.encode(): value for name, value in (set_to or {}).items()}
        self._add = {name.encode(): value for name, value in (add or {}).items()}
        self._gone = frozenset([*(name.lower().encode() for name in remove), *(name.lower() for name in self._set)])

    def __bool__(self) -> bool:
        return bool(self._gone or self._add)

    def request(self, head: RequestHead, client: ClientAddress) -> None:
        """Edit a request's fields in place."""
        more: Fields = [(name, value.of(head, client)) for name, value in (*self._set.items(), *self._add.items())]
        self._edit(head, more)

    def response(self, head: ResponseHead) -> None:
        """Edit a response's fields in place; templates stand for themselves here."""
        more = [(name, value.constant or b"") for name, value in (*self._set.items(), *self._add.items())]
        self._edit(head, more)

    def _edit(self, head: Head, more: Fields) -> None:
        if self._gone:
            head.fields[:] = [pair for pair in head.fields if pair[0].lower() not in self._gone]
        head.fields.extend(more)


class Route:
    """One route, compiled. Exactly one of ``pool``, ``split``, ``redirect`` and ``answer`` is given.

    :ivar pool: its name. :ivar plain: it leads to its pool and changes nothing: the usual case.
    """

    __slots__ = (
        "answer",
        "handling",
        "mirror",
        "plain",
        "pool",
        "priority",
        "redirect",
        "request_edits",
        "response_edits",
        "rewrite",
        "split",
    )

    def __init__(
        self,
        *,
        pool: str | None = None,
        split: Split | None = None,
        redirect: Redirect | None = None,
        answer: OwnAnswer | None = None,
        mirror: Mirror | None = None,
        rewrite: Rewrite | None = None,
        request_edits: FieldEdits | None = None,
        response_edits: FieldEdits | None = None,
        handling: Handling | None = None,
        priority: int = 0,
    ) -> None:
        self.pool = pool
        self.split = split
        self.redirect = redirect
        self.answer = answer
        self.mirror = mirror
        self.rewrite = rewrite
        self.request_edits = request_edits or None
        self.response_edits = response_edits or None
        self.handling = handling or USUAL
        self.priority = priority
        self.plain = pool is not None and not any(
            (mirror, rewrite, self.request_edits, self.response_edits, priority, self.handling.max_body is not None)
        )
