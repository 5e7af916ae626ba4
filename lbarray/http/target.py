"""The request target and the host in one form (RFC 9112 §3.2, RFC 3986 §6.2.2).

It is made once, before anything looks at them: routes, logs and back ends see the same octets, so nobody can ask
the back end for what the routes did not see.
"""

from __future__ import annotations

import re

from lbarray.http.refusals import BadMessage

__all__ = ["normal_authority", "normal_form", "normal_target"]

# RFC 3986 §3.2.2 without percent-encoding and sub-delims: nobody serves such names, and log files would lie.
_AUTHORITY = re.compile(rb"([A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{0,5}))?\Z")
_ESCAPE = re.compile(rb"%(.{0,2})", re.DOTALL)
_HEX = re.compile(rb"[0-9A-Fa-f]{2}\Z")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# A connection asks for the same host again and again.
_known: dict[bytes, tuple[bytes, bytes]] = {}
_KNOWN_LIMIT = 1024


def normal_authority(authority: bytes) -> tuple[bytes, bytes]:
    """(host in lower case, the same with the port that was given).

    :raises BadMessage: with the status 400: no host, or something besides a host.
    """
    found = _known.get(authority)
    if found is not None:
        return found
    match = _AUTHORITY.match(authority)
    if match is None:
        raise BadMessage("host", f"the host {authority[:80]!r}")
    host = match[1].lower()
    if host.endswith(b".") and host.strip(b"."):
        host = host[:-1]  # the root's dot: the same name
    port = match[2]
    if port and not 0 < int(port) < 65536:
        raise BadMessage("host", f"the port of the host {authority[:80]!r}")
    found = (host, b"%b:%d" % (host, int(port)) if port else host)
    if len(_known) >= _KNOWN_LIMIT:
        _known.clear()
    _known[authority] = found
    return found


def normal_target(target: bytes) -> bytes:
    """An origin form (RFC 9112 §3.2.1) whose path has one spelling; the query stays as it came.

    Unreserved characters are written plainly, escapes in upper case, dot segments are resolved.

    :raises BadMessage: with the status 400: an escape that is none, NUL, a backslash, or a path that leaves the root.
    """
    if b"%" not in target and b"/." not in target and b"\\" not in target:
        return target
    path, mark, query = target.partition(b"?")
    if b"\\" in path:
        raise BadMessage("target", "a backslash in the path")  # a slash to some back ends
    if b"%" in path:
        path = _ESCAPE.sub(_unescape, path)
    if b"/." in path:
        path = _without_dot_segments(path)
    return path + mark + query


def _unescape(match: re.Match[bytes]) -> bytes:
    digits = match[1]
    if not _HEX.match(digits):
        raise BadMessage("target", f"the escape {match[0]!r}")
    octet = int(digits, 16)
    if not octet:
        raise BadMessage("target", "NUL in the path")
    return bytes((octet,)) if octet in _UNRESERVED else b"%%%02X" % octet


def _without_dot_segments(path: bytes) -> bytes:
    kept: list[bytes] = []
    segments = path[1:].split(b"/")
    for place, segment in enumerate(segments):
        if segment in (b".", b".."):
            if segment == b"..":
                if not kept:
                    raise BadMessage("target", "a path that leaves the root")
                kept.pop()
            if place == len(segments) - 1:
                kept.append(b"")
        elif segment.startswith((b".;", b"..;")):
            # Some back ends take the parameter off and then resolve what is left.
            raise BadMessage("target", "a dot segment with a parameter")
        else:
            kept.append(segment)
    return b"/" + b"/".join(kept)


def normal_form(method: bytes, target: bytes, host_field: bytes | None) -> tuple[bytes, bytes, bytes]:
    """(origin or asterisk form, host in lower case, host with port), the last two empty where none was named.

    :raises BadMessage: with the status 400.
    """
    if b"#" in target:
        raise BadMessage("target", "a fragment in the target")
    if target.startswith(b"/"):
        host, authority = normal_authority(host_field) if host_field is not None else (b"", b"")
        return normal_target(target), host, authority
    if target == b"*" and method == b"OPTIONS":
        host, authority = normal_authority(host_field) if host_field is not None else (b"", b"")
        return target, host, authority
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        return _absolute(method, rest, host_field)
    raise BadMessage("target", f"the target {target[:80]!r}")


def _absolute(method: bytes, rest: bytes, host_field: bytes | None) -> tuple[bytes, bytes, bytes]:
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    host, authority = normal_authority(rest[:end])
    if host_field is not None and normal_authority(host_field) != (host, authority):
        # RFC 9112 §3.2.2 lets the target win; somebody behind us may ask the field instead.
        raise BadMessage("host", "a Host that is not the target's")
    path = rest[end:]
    if not path and method == b"OPTIONS":
        return b"*", host, authority  # RFC 9112 §3.2.4
    return normal_target(path if path.startswith(b"/") else b"/" + path), host, authority
