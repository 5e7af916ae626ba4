"""The request target in one form (RFC 9112 §3.2): whatever the client sent, a back end gets the origin form."""

from __future__ import annotations

import re

from lbarray.http.refusals import BadMessage

__all__ = ["normal_form"]


# RFC 3986 §3.2.2 without percent-encoding: nobody serves such names, and log files would lie.
_AUTHORITY = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?\Z")


def _host(authority: bytes) -> bytes:
    match = _AUTHORITY.match(authority)
    if match is None:
        raise BadMessage("target", f"the host {authority[:80]!r}")
    return match[1].lower()


def normal_form(method: bytes, target: bytes, host_field: bytes) -> tuple[bytes, bytes]:
    """(origin or asterisk form, host in lower case without port; empty where there is none).

    :raises BadMessage: with the status 400.
    """
    if b"#" in target:
        raise BadMessage("target", "a fragment in the target")
    if target.startswith(b"/"):
        return target, _host(host_field) if host_field else b""
    if target == b"*" and method == b"OPTIONS":
        return target, _host(host_field) if host_field else b""
    scheme, separator, rest = target.partition(b"://")
    if method != b"CONNECT" and separator and scheme.lower() in (b"http", b"https"):
        # Absolute form: its authority wins over the Host field (RFC 9112 §3.2.2).
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        path = rest[end:]
        return path if path.startswith(b"/") else b"/" + path, _host(rest[:end])
    raise BadMessage("target", f"the target {target[:80]!r}")
