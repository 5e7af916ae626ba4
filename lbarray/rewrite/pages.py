"""Whose pages are rewritten: by host and path, by client, by cookie."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import attrs

from lbarray.http.events import RequestHead
from lbarray.values import ClientAddress

__all__ = ["PageRule", "PageRules", "fits"]


@attrs.frozen
class PageRule:
    """Pages of this host and path: rewritten or not, and for which share of the clients (0.0 to 1.0)."""

    host: bytes = b"*"
    path: bytes = b"/"
    rewrite: bool = True
    share: float = 1.0


def fits(host: bytes, pattern: bytes) -> bool:
    """``*``, ``*.example.net``, or the name itself."""
    return pattern in (b"*", host) or (pattern.startswith(b"*.") and host.endswith(pattern[1:]))


def under(path: bytes, prefix: bytes) -> bool:
    """``/shop`` holds ``/shop`` and what is below it, not ``/shopping``; with a slash at its end it is a prefix."""
    return path.startswith(prefix) and (prefix.endswith(b"/") or path[len(prefix) : len(prefix) + 1] in (b"", b"/"))


def client_share(client: str) -> float:
    """Where a client stands among all, from 0.0 to 1.0, the same at every node."""
    digest = hashlib.blake2b(client.encode(), digest_size=4, person=b"lbarray-roll-out").digest()
    return int.from_bytes(digest, "big") / 2**32


class PageRules:
    """:param rules: the most exact one wins: by the length of its path, then by its host.

    :param share: of the clients whose pages are rewritten at all.
    :param skip_cookies: names of cookies whose bearers get the pages as they are.
    """

    def __init__(
        self, rules: Sequence[PageRule] = (), *, share: float = 1.0, skip_cookies: Sequence[bytes] = ()
    ) -> None:
        self._rules = sorted(rules, key=lambda rule: (len(rule.path), rule.host != b"*", len(rule.host)), reverse=True)
        self._share = share
        self.skip_cookies = tuple(skip_cookies)

    def why_not(self, request: RequestHead, client: ClientAddress) -> str:
        """The counter's label of why this page stays as it is; ``""``: it does not."""
        share = self._share
        if self._rules:
            path = request.path
            for rule in self._rules:
                if fits(request.host, rule.host) and under(path, rule.path):
                    if not rule.rewrite:
                        return "excluded"
                    share = min(share, rule.share)
                    break
        if share < 1.0 and client_share(client.host) >= share:
            return "roll_out"
        if self.skip_cookies and self._carries(request):
            return "cookie"
        return ""

    def _carries(self, request: RequestHead) -> bool:
        for line in request.get_all(b"cookie"):
            for pair in line.split(b";"):
                if pair.partition(b"=")[0].strip() in self.skip_cookies:
                    return True
        return False
