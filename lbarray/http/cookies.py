"""Cookies (RFC 6265), only as far as a balancer needs: find one, take it out, make one."""

from __future__ import annotations

from lbarray.http.events import RequestHead

__all__ = ["cookie_values", "set_cookie", "without_cookie"]


def cookie_values(head: RequestHead, name: bytes) -> list[bytes]:
    """Every value of the cookie ``name`` that the request carries, in order (RFC 6265 §4.2)."""
    values = []
    for field, line in head.fields:
        if len(field) == 6 and field.lower() == b"cookie" and name in line:
            for pair in line.split(b";"):
                key, equals, value = pair.partition(b"=")
                if equals and key.strip() == name:
                    values.append(value.strip().strip(b'"'))
    return values


def without_cookie(head: RequestHead, name: bytes) -> None:
    """Take the cookie ``name`` out of the request; a Cookie field that becomes empty goes as well."""
    fields = head.fields
    for place in range(len(fields) - 1, -1, -1):
        field, line = fields[place]
        if len(field) == 6 and field.lower() == b"cookie" and name in line:
            kept = [pair.strip() for pair in line.split(b";") if pair.partition(b"=")[0].strip() != name]
            kept = [pair for pair in kept if pair]
            if kept:
                fields[place] = (field, b"; ".join(kept))
            else:
                del fields[place]


def set_cookie(
    name: str,
    value: str,
    *,
    secure: bool,
    same_site: str = "Lax",
    http_only: bool = True,
    path: str = "/",
    domain: str = "",
    max_age_s: int | None = None,
) -> tuple[bytes, bytes]:
    """A Set-Cookie field (RFC 6265 §4.1); by default a session cookie of the whole site that no script can read."""
    text = f"{name}={value}; Path={path}"
    if domain:
        text += f"; Domain={domain}"
    if max_age_s is not None:
        text += f"; Max-Age={max_age_s}"
    if http_only:
        text += "; HttpOnly"
    text += f"; SameSite={same_site}"
    return b"Set-Cookie", (text + "; Secure" if secure else text).encode()
