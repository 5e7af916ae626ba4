"""The cookie that brings a client back to its back end."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Collection, Sequence
from typing import Any

from zope.interface import implementer

from lbarray.http.cookies import cookie_values, set_cookie, without_cookie
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IPersistence
from lbarray.values import BackendAddress, ClientAddress

__all__ = ["CookiePersistence"]

#: What Cache-Control (RFC 9111 §5.2.2) says: that shared caches keep nothing; that they may.
_PRIVATE = re.compile(rb"(?:^|[\s,])(?:private|no-store)\s*(?:,|$)")
_SHARED = re.compile(rb"(?:^|[\s,])(?:public|s-maxage=\"?[1-9]|max-age=\"?[1-9])")
_FOR_ONE = (b"Cache-Control", b"private")


@implementer(IPersistence)
class CookiePersistence:
    """An injected cookie whose value names a member without telling its address.

    The value is a keyed hash of pool and member: the same on every node of the array, impossible to make
    without the key, and useless for finding out what stands behind it. It names a member and seeds nothing, so
    pools may grow and shrink, and clients of the others stay where they are.

    A cache on the way must not give one client's cookie to all (RFC 9111 §7.3): a response that says that shared caches
    may keep it goes without the cookie, and one that says nothing of caches becomes ``private`` with it.

    :param secret: the array's shared key.
    :param strip: the back end does not get to see the cookie.
    :param secure: ``None``: on connections of TLS only.
    :param max_age_s: how long a browser keeps it; ``None``: as long as it runs.
    """

    def __init__(
        self,
        *,
        cookie: str,
        secret: bytes,
        same_site: str = "Lax",
        strip: bool = True,
        secure: bool | None = None,
        http_only: bool = True,
        path: str = "/",
        domain: str = "",
        max_age_s: int | None = None,
    ) -> None:
        self.cookie = cookie
        self._name = cookie.encode()
        self._secret = secret
        self._strip = strip
        self._secure = secure
        self._attributes = {
            "same_site": same_site,
            "http_only": http_only,
            "path": path,
            "domain": domain,
            "max_age_s": max_age_s,
        }
        self._by_token: dict[bytes, Any] = {}
        self._fields: dict[Any, tuple[tuple[bytes, bytes], tuple[bytes, bytes]]] = {}
        self._serving: Collection[Any] = ()

    def token(self, address: BackendAddress) -> bytes:
        """The cookie's value for a member."""
        named = f"lbarray cookie\0{address.pool}\0{address.name}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self._secret, named, "sha256")[:12])

    def update(self, members: Sequence[Any], serving: Collection[Any]) -> None:
        self._serving = frozenset(serving)
        if self._fields.keys() != set(members):
            tokens = {member: self.token(member.address) for member in members}
            self._by_token = {token: member for member, token in tokens.items()}
            self._fields = {
                member: (self._field(token, secure=False), self._field(token, secure=True))
                for member, token in tokens.items()
            }

    def find(self, request: RequestHead, client: ClientAddress) -> tuple[Any | None, bytes]:
        values = cookie_values(request, self._name)
        if not values:
            return None, b""
        if self._strip:
            without_cookie(request, self._name)
        for value in values:
            member = self._by_token.get(value)
            if member is not None and member in self._serving:
                return member, b""
        return None, b""

    def knows(self, request: RequestHead, client: ClientAddress) -> bool:
        by_token, serving = self._by_token, self._serving
        return any(by_token.get(value) in serving for value in cookie_values(request, self._name))

    def answered(self, member: Any, found: bool, mark: bytes, response: ResponseHead, secure: bool) -> None:
        if found or (fields := self._fields.get(member)) is None:
            return
        told = b",".join(response.get_all(b"cache-control")).lower()
        private = _PRIVATE.search(told) is not None
        if not private and _SHARED.search(told):
            return
        response.fields.append(fields[secure])
        if not private:
            response.fields.append(_FOR_ONE)

    def _field(self, token: bytes, *, secure: bool) -> tuple[bytes, bytes]:
        return set_cookie(
            self.cookie,
            token.decode(),
            secure=secure if self._secure is None else self._secure,
            **self._attributes,  # type: ignore[arg-type]  # they are the parameters' own
        )

    def tick(self, now: float) -> bool:
        return False
