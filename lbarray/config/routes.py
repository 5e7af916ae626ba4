"""Which request goes where: ``[[routes]]``."""

from __future__ import annotations

from typing import Annotated

import attrs

from lbarray.config.scalars import (
    FieldName,
    FieldTestValue,
    FieldText,
    Flag,
    HostPattern,
    Name,
    NetworkText,
    PathPrefix,
    Pattern,
    Seconds,
    Text,
    between,
    number,
    one_of,
)

__all__ = ["Answer", "Edits", "Mirror", "Redirect", "Rewrite", "Route"]


@attrs.frozen
class Redirect:
    """``redirect = { to = "https://{host}{target}" }``: send the client elsewhere.

    :ivar to: the Location, with ``{scheme}``, ``{host}``, ``{path}``, ``{query}``, ``{target}`` and ``{client}``.
    """

    to: FieldText
    status: Annotated[int, one_of(301, 302, 303, 307, 308)] = 308


@attrs.frozen
class Answer:
    """``answer = { status = 403, content = "…" }``: a fixed answer."""

    status: Annotated[int, between(200, 599)] = 200
    content: str = ""
    content_type: FieldText = "text/plain; charset=utf-8"


@attrs.frozen
class Mirror:
    """``mirror = { pool = "shadow", percent = 5 }``: a copy goes to that pool, and its answers nowhere."""

    pool: Name
    percent: Annotated[float, number(0.0, 100.0)] = 100.0


@attrs.frozen
class Rewrite:
    """``rewrite = { prefix = "/new" }``: another path for the back end.

    :ivar prefix: takes the place of the route's own ``path``.
    :ivar regex: what it finds is replaced by ``to``, in which ``\\1`` is its first group.
    """

    prefix: PathPrefix | None = None
    regex: Pattern | None = None
    to: str = ""


@attrs.frozen
class Edits:
    """``request_fields`` and ``response_fields``: header fields to ``remove``, ``set`` and ``add``, in this order.

    Values for requests may name ``{client}``, ``{host}``, ``{scheme}``, ``{path}``, ``{query}`` and ``{target}``.
    """

    remove: tuple[FieldName, ...] = ()
    set: dict[FieldName, FieldText] = attrs.field(factory=dict)
    add: dict[FieldName, FieldText] = attrs.field(factory=dict)


@attrs.frozen
class Route:
    """``[[routes]]``: requests that match all that is given go there.

    Of several that match wins the exact host, then the longest wildcard, then any; then the exact path, then
    regular expressions in the file's order, then the longest prefix; then the one with the most conditions;
    then the first. Exactly one of ``pool``, ``split``, ``redirect`` and ``answer`` says where.

    :ivar name: what metrics, the access log and traces call it; its host and path if it is not given.
    :ivar host: a name, ``*.example.net`` or ``*``; at any port.
    :ivar path: a prefix, by whole segments. ``path_exact``: the whole path; ``path_regex``: found in the path (RE2).
    :ivar methods: one of these; :ivar networks: the client's address is in one of these.
    :ivar headers: each field has this value; ``"~…"``: a regular expression is found in it; ``true``: it is there,
        ``false``: it is not. :ivar query: likewise for parameters of the URL.
    :ivar services: names of the services it holds for; none given means all.
    :ivar split: pools by weight. :ivar sticky: a client's address decides which, so that it stays there.
    :ivar max_body: octets of a request's content, for this route.
    :ivar retry_statuses: statuses of a back end upon which another one is asked, where a request may be repeated.
    :ivar retry_broken: likewise when the back end's connection breaks before it has answered.
    :ivar priority: in a pool's queue, higher ones go first.
    """

    pool: Name | None = None
    name: Name | None = None
    host: HostPattern = "*"
    path: PathPrefix = "/"
    path_exact: PathPrefix | None = None
    path_regex: Pattern | None = None
    methods: tuple[Name, ...] = ()
    headers: dict[FieldName, FieldTestValue] = attrs.field(factory=dict)
    query: dict[Text, FieldTestValue] = attrs.field(factory=dict)
    networks: tuple[NetworkText, ...] = ()
    services: tuple[Name, ...] = ()
    split: dict[Name, Annotated[int, between(0, 1_000_000)]] = attrs.field(factory=dict)
    sticky: Flag = False
    redirect: Redirect | None = None
    answer: Answer | None = None
    mirror: Mirror | None = None
    rewrite: Rewrite | None = None
    request_fields: Edits = attrs.field(factory=Edits)
    response_fields: Edits = attrs.field(factory=Edits)
    max_body: Annotated[int, between(0, 1 << 40)] | None = None
    response_timeout: Seconds | None = None
    retry_statuses: tuple[Annotated[int, between(400, 599)], ...] = ()
    retry_broken: Flag = True
    priority: Annotated[int, between(-100, 100)] = 0

    @property
    def label(self) -> str:
        """Its name, or what it is for: ``www.example.com/shop``, ``*/api``, ``*~^/v[0-9]+``."""
        path = f"~{self.path_regex}" if self.path_regex is not None else self.path_exact or self.path
        return self.name or f"{self.host}{path}"
