"""Candidates of a ``srcset`` attribute (WHATWG HTML §4.8.4.2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["candidate_urls"]

_URL = re.compile(rb"[\t\n\f\r ,]*+([^\t\n\f\r ]++)")
_DESCRIPTORS = re.compile(rb"(?:[^,(]++|\([^)]*+\)?)*+,?")


def candidate_urls(value: bytes) -> Iterator[tuple[int, int]]:
    """(start, end) of each candidate's URL within ``value``."""
    at = 0
    while match := _URL.match(value, at):
        start, end = match.span(1)
        url_end = start + len(match[1].rstrip(b","))
        if url_end == end:
            descriptors = _DESCRIPTORS.match(value, end)
            end = descriptors.end() if descriptors else end
        at = end
        if url_end > start:
            yield start, url_end
