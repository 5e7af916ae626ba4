"""The cookie that brings a client back to its back end."""

from __future__ import annotations

import base64
import hmac

from lbarray.http.cookies import cookie_values, set_cookie, without_cookie
from lbarray.http.events import RequestHead
from lbarray.values import BackendAddress

__all__ = ["CookiePersistence"]


class CookiePersistence:
    """An injected cookie whose value names a member without telling its address.

    The value is a keyed hash of pool and member: the same on every node of the array, and useless for
    finding out what stands behind it.

    :param secret: the array's shared key.
    :param strip: the back end does not get to see the cookie.
    """

    def __init__(self, *, cookie: str, secret: bytes, same_site: str = "Lax", strip: bool = True) -> None:
        self.cookie = cookie
        self._name = cookie.encode()
        self._secret = secret
        self._same_site = same_site
        self._strip = strip

    def token(self, address: BackendAddress) -> bytes:
        """The cookie's value for a member."""
        named = f"lbarray cookie\0{address.pool}\0{address.name}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self._secret, named, "sha256")[:12])

    def read(self, request: RequestHead) -> list[bytes]:
        """The values that the request brings; they are taken out of it where that is wanted."""
        values = cookie_values(request, self._name)
        if values and self._strip:
            without_cookie(request, self._name)
        return values

    def field(self, token: bytes, *, secure: bool) -> tuple[bytes, bytes]:
        """The Set-Cookie field that binds a client."""
        return set_cookie(self.cookie, token.decode(), secure=secure, same_site=self._same_site)
