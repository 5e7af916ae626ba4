"""Which of the site's paths the CDN serves: by prefix, pattern, extension, and by what earlier responses told."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from fnmatch import translate

import attrs

__all__ = ["Learnt", "Selection", "glob"]

#: Paths of which the type and size are remembered.
LEARNT_PATHS = 65536


def glob(pattern: str) -> re.Pattern[bytes]:
    """``*`` stands for anything within a segment, ``**`` for anything, ``?`` for one character but a slash."""
    parts = [
        ".*" if piece == "**" else "[^/]*" if piece == "*" else "[^/]" if piece == "?" else re.escape(piece)
        for piece in re.split(r"(\*\*|\*|\?)", pattern)
    ]
    return re.compile("".join(parts).encode() + rb"\Z", re.DOTALL)


class Learnt:
    """What responses to requests for static content told of it: media type and size. The latest are kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()

    def learn(self, path: bytes, media_type: bytes, size: int) -> bool:
        """It is news. ``size``: octets, or -1 where nothing was said."""
        fact = (media_type, size)
        if self._known.get(path) == fact:
            return False
        self._known[path] = fact
        self._known.move_to_end(path)
        if len(self._known) > LEARNT_PATHS:
            self._known.popitem(last=False)
        return True

    def get(self, path: bytes) -> tuple[bytes, int] | None:
        """Media type and size."""
        return self._known.get(path)


@attrs.frozen(kw_only=True)
class Selection:
    """What must be true of a path.

    :ivar paths: it begins with one of these, or matches one of ``globs``.
    :ivar extensions: when given, it ends in one of these, such as ``png``.
    :ivar exclude: it matches none of these.
    :ivar types: when given, it is known from an earlier response to be of one of these media types; ``image/*`` is
        every image.
    :ivar min_size: when above 0, it is known to have so many octets at least; ``max_size`` likewise, at most.
    """

    paths: tuple[bytes, ...] = ()
    globs: tuple[re.Pattern[bytes], ...] = ()
    extensions: frozenset[bytes] = frozenset()
    exclude: tuple[re.Pattern[bytes], ...] = ()
    types: tuple[re.Pattern[bytes], ...] = ()
    min_size: int = 0
    max_size: int = 0
    learnt: Learnt = attrs.field(factory=Learnt)

    @property
    def learns(self) -> bool:
        """It depends on what responses tell."""
        return bool(self.types or self.min_size or self.max_size)

    def __contains__(self, path: bytes) -> bool:
        """:param path: absolute, without dot segments, query and fragment."""
        if not path.startswith(self.paths) and not any(pattern.match(path) for pattern in self.globs):
            return False
        if self.extensions:
            _, dot, extension = path.rpartition(b"/")[2].rpartition(b".")
            if not dot or extension.lower() not in self.extensions:
                return False
        if any(pattern.match(path) for pattern in self.exclude):
            return False
        return not self.learns or self._fits(path)

    def _fits(self, path: bytes) -> bool:
        known = self.learnt.get(path)
        if known is None:
            return False
        media_type, size = known
        if self.types and not any(pattern.match(media_type) for pattern in self.types):
            return False
        if (self.min_size or self.max_size) and size < 0:
            return False
        return size >= self.min_size and (not self.max_size or size <= self.max_size)


def media_types(patterns: Sequence[str]) -> tuple[re.Pattern[bytes], ...]:
    """``image/*`` and the like."""
    return tuple(re.compile(translate(pattern.lower()).encode()) for pattern in patterns)
