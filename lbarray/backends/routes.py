"""Which pool a request goes to: by service, host and path."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = ["Route", "RouteTable"]


@attrs.frozen
class Route:
    """Requests of ``host`` and ``path`` go to ``pool``.

    :ivar host: a name, ``*.example.net`` (any number of labels before it) or ``*``; lower case.
    :ivar path: a prefix that ends at a segment: ``/shop`` holds for ``/shop`` and ``/shop/x``, not ``/shopping``.
    :ivar services: the services it holds for; none means all.
    """

    pool: str
    host: str = "*"
    path: str = "/"
    services: tuple[str, ...] = ()


class RouteTable:
    """The routes of one service, most exact first: exact host, longest wildcard, any; then the longest path.

    Of two equally exact routes the one that stands first wins.
    """

    def __init__(self, routes: Sequence[Route], service: str) -> None:
        mine = [route for route in routes if not route.services or service in route.services]
        self._exact: dict[bytes, list[tuple[bytes, str]]] = {}
        self._suffixes: list[tuple[bytes, list[tuple[bytes, str]]]] = []
        hosts: dict[str, list[tuple[bytes, str]]] = {}
        for route in mine:
            hosts.setdefault(route.host.lower(), []).append((route.path.encode(), route.pool))
        for paths in hosts.values():
            paths.sort(key=lambda pair: -len(pair[0]))  # stable: the first of equals stays first
        self._any = hosts.pop("*", [])
        for host, paths in hosts.items():
            if host.startswith("*."):
                self._suffixes.append((host[1:].encode(), paths))
            else:
                self._exact[host.encode()] = paths
        self._suffixes.sort(key=lambda pair: -len(pair[0]))

    def find(self, host: bytes, path: bytes) -> str | None:
        """The pool's name, ``None`` where no route holds. ``host`` is in lower case without port."""
        if self._exact and (paths := self._exact.get(host)) and (pool := _longest(paths, path)):
            return pool
        for suffix, paths in self._suffixes:
            if host.endswith(suffix) and len(host) > len(suffix) and (pool := _longest(paths, path)):
                return pool
        return _longest(self._any, path)


def _longest(paths: list[tuple[bytes, str]], path: bytes) -> str | None:
    for prefix, pool in paths:
        if path.startswith(prefix) and (
            prefix.endswith(b"/") or len(path) == len(prefix) or path[len(prefix)] in b"/?"
        ):
            return pool
    return None
