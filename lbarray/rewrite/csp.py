"""Whether a page's Content Security Policy lets content come from the CDN (W3C CSP Level 3, §6.7)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["amended", "permits"]

#: What the CDN serves, and which directive speaks of it where the one before is absent (§6.8.3).
_FALLBACKS = (
    (b"script-src-elem", b"script-src", b"default-src"),
    (b"style-src-elem", b"style-src", b"default-src"),
    (b"img-src", b"default-src"),
    (b"font-src", b"default-src"),
    (b"media-src", b"default-src"),
)
_HOST_SOURCE = re.compile(
    rb"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<host>\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    rb"(?::(?P<port>\d+|\*))?(?P<path>/.*)?\Z",
    re.IGNORECASE,
)
_PORTS = {b"http": b"80", b"https": b"443"}


def permits(policies: Iterable[bytes], origin: bytes, paths: Sequence[bytes]) -> bool:
    """All of these policies let a page load scripts, styles, images, fonts and media from there.

    :param policies: values of ``Content-Security-Policy`` fields; one value may hold several policies.
    :param origin: of the CDN: scheme, host, port where it is unusual.
    :param paths: prefixes of what it serves.
    """
    place = _place(origin)
    for policy in (policy for value in policies for policy in value.split(b",")):
        directives: dict[bytes, list[bytes]] = {}
        for directive in policy.split(b";"):
            words = directive.split()
            if words:
                directives.setdefault(words[0].lower(), words[1:])  # a second one of a name is ignored (§2.2.1)
        for names in _FALLBACKS:
            sources = next((directives[name] for name in names if name in directives), None)
            if sources is None:
                continue
            # With 'strict-dynamic' hosts do not count (§8.2): what does, we cannot give.
            if b"'strict-dynamic'" in (source.lower() for source in sources) and names[0].startswith(b"script"):
                return False
            if not any(_matches(source, place, paths) for source in sources):
                return False
    return True


def amended(value: bytes, origins: Sequence[bytes], paths: Sequence[bytes]) -> bytes | None:
    """The value of a ``Content-Security-Policy`` field with the CDN added where it was kept out; ``None`` where that
    cannot be done: with ``'strict-dynamic'`` hosts do not count.

    Only the directive that speaks of a kind of content is widened; where ``default-src`` speaks for it, the kind gets a
    directive of its own.
    """
    policies = []
    for policy in value.split(b","):
        parts = [directive.strip() for directive in policy.split(b";") if directive.strip()]
        for names in _FALLBACKS:
            places = {part.split()[0].lower(): place for place, part in reversed(list(enumerate(parts)))}
            name = next((name for name in names if name in places), None)
            if name is None:
                continue
            sources = parts[places[name]].split()[1:]
            lower = [source.lower() for source in sources]
            if b"'strict-dynamic'" in lower and names[0].startswith(b"script"):
                return None
            missing = [
                origin for origin in origins if not any(_matches(source, _place(origin), paths) for source in sources)
            ]
            if not missing:
                continue
            widened = b" ".join([*(source for source in sources if source.lower() != b"'none'"), *missing])
            if name == b"default-src":
                parts.append(names[-2] + b" " + widened)
            else:
                parts[places[name]] = name + b" " + widened
        policies.append(b"; ".join(parts))
    return b", ".join(policies)


def _place(origin: bytes) -> tuple[bytes, bytes, bytes]:
    """Scheme, host, port."""
    scheme, _, authority = origin.lower().partition(b"://")
    host, colon, port = authority.rpartition(b":")
    if not colon or port.endswith(b"]"):
        host, port = authority, _PORTS.get(scheme, b"")
    return scheme, host, port


def _matches(source: bytes, place: tuple[bytes, bytes, bytes], paths: Sequence[bytes]) -> bool:
    """One source expression (§6.7.2.8). ``'self'``, nonces and hashes never mean another origin."""
    scheme, host, port = place
    word = source.lower()
    if word == b"*":
        return True
    if word.endswith(b":"):
        return word[:-1] == scheme or (word == b"http:" and scheme == b"https")
    found = _HOST_SOURCE.match(source)
    if found is None:
        return False
    wanted = (found["scheme"] or b"").lower()
    if wanted and wanted != scheme and (wanted, scheme) != (b"http", b"https"):
        return False
    name = found["host"].lower()
    if name.startswith(b"*."):
        if not host.endswith(name[1:]):
            return False
    elif name not in (b"*", host):
        return False
    if found["port"] is None:
        if port != _PORTS.get(scheme):
            return False
    elif found["port"] not in (b"*", port):
        return False
    path = found["path"]
    if path in (None, b"/"):
        return True
    # Without a slash at its end it names one file, which is not all that the CDN serves.
    return path.endswith(b"/") and all(prefix.startswith(path) for prefix in paths)
