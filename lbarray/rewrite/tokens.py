"""The grammar of HTML's tokens, as far as it decides where tags begin and end (WHATWG HTML §13.2.5).

Regular expressions over octets whose every loop is possessive: each is linear in its input. None matches a token
that the buffer's end may have cut: what does not match waits for more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from lbarray.rewrite.places import PLACES, Kind, with_own

__all__ = [
    "BEGUN_VALUE",
    "CDATA",
    "COMMENT_END",
    "ENDS",
    "FOREIGN",
    "FOREIGN_END",
    "PAIR",
    "SCRIPT_MARK",
    "SKIP",
    "START",
    "TAG",
    "WHOLE_ATTRIBUTES",
    "finders",
]

_SPACE = rb"\t\n\f\r "
_NAME = rb"(?:=[^" + _SPACE + rb"/>=]*+|[^" + _SPACE + rb"/>=]++)"
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^" + _SPACE + rb">\"'][^" + _SPACE + rb">]*+|(?=>))"
_EQUALS = rb"[" + _SPACE + rb"]*+=[" + _SPACE + rb"]*+"
# A name with "=" must have its value in the buffer: otherwise the tag is not complete yet.
_ATTRIBUTE = _NAME + rb"(?:" + _EQUALS + _VALUE + rb"|(?!" + _EQUALS + rb"))"
_BETWEEN = rb"[" + _SPACE + rb"/]*+"
_ATTRIBUTES = rb"(?:" + _BETWEEN + _ATTRIBUTE + rb")*+" + _BETWEEN + rb">"
_NAME_ENDS = rb"(?=[" + _SPACE + rb"/>])"

#: Elements whose content is no markup (§13.2.6.2: raw text and escapable raw text).
_TEXT_ONLY = (b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes", b"plaintext")
#: Where the rules of text-only elements, of ``/>`` and of CDATA are those of XML (§13.2.6.5).
FOREIGN = (b"svg", b"math")
_COMMENT = rb"<!--(?:-?>|(?:[^-]++|-(?!-!?>))*+--!?>)"


def _any_of(names: Iterable[bytes]) -> bytes:
    """A pattern of these names, whatever their case, as a tree of sets: alternatives that ``re`` can tell apart by
    their first octet are several times as fast as the same under its flag for case."""
    tails: dict[bytes, list[bytes]] = {}
    for name in sorted(names, reverse=True):  # a longer one before its beginning
        tails.setdefault(name[:1], []).append(name[1:])
    branches = [
        b"[" + first + first.upper() + b"]" + (_any_of(rest) if any(rest) else b"")
        if first.isalpha()
        else re.escape(first) + (_any_of(rest) if any(rest) else b"")
        for first, rest in tails.items()
    ]
    return branches[0] if len(branches) == 1 else b"(?:" + b"|".join(branches) + b")"


_FOREIGN_NAMED = _any_of(FOREIGN) + _NAME_ENDS
_NAMED = _any_of({*PLACES, *_TEXT_ONLY, *FOREIGN, b"base", b"meta"}) + _NAME_ENDS
#: From anywhere in markup to the next tag of interest, or to what is not complete.
SKIP = re.compile(
    rb"(?:[^<]++"
    rb"|</(?!" + _FOREIGN_NAMED + rb")[a-zA-Z0-9]++>"
    rb"|<(?=[^a-zA-Z/!?])"
    rb"|<(?!" + _NAMED + rb")[a-zA-Z][^" + _SPACE + rb"/>]*+(?:>|" + _ATTRIBUTES + rb")"
    rb"|</(?!" + _FOREIGN_NAMED + rb")[a-zA-Z][^" + _SPACE + rb"/>]*+" + _ATTRIBUTES + rb"|</(?=[^a-zA-Z])[^>]*+>"
    rb"|" + _COMMENT + rb"|<!(?!--|\[CDATA\[)[^>]*+>"
    rb"|<\?[^>]*+>)*+"
)
#: A whole tag of interest; its name.
TAG = re.compile(rb"<(" + _NAMED + rb")" + _ATTRIBUTES)
#: The end of SVG or MathML.
FOREIGN_END = re.compile(rb"</" + _FOREIGN_NAMED + _ATTRIBUTES)
CDATA = b"<![CDATA["
#: The name of a tag that is not complete.
START = re.compile(rb"</?([a-zA-Z][^" + _SPACE + rb"/>]*+)" + _NAME_ENDS)
#: Attributes of a tag that is not complete, but for one that may go on.
WHOLE_ATTRIBUTES = re.compile(
    rb"(?:"
    + _BETWEEN
    + _NAME
    + rb"(?:"
    + _EQUALS
    + _VALUE
    + rb"(?!\Z)|(?=["
    + _SPACE
    + rb"]*+[^"
    + _SPACE
    + rb"=])))*+"
    rb"" + _BETWEEN
)
#: An attribute up to its value's opening quotation mark.
BEGUN_VALUE = re.compile(_NAME + _EQUALS + rb"([\"'])")
_PAIR_VALUE = rb"(?:" + _EQUALS + rb"(" + _VALUE[3:-1] + rb"))?+"
#: One attribute of a whole tag: its name, its value with quotation marks if it has one.
PAIR = re.compile(_BETWEEN + rb"(" + _NAME + rb")" + _PAIR_VALUE)
COMMENT_END = re.compile(rb"--!?>")
SCRIPT_MARK = re.compile(rb"<!--|-->|<script(?=[\t\n\f\r />])|</script(?=[\t\n\f\r />])", re.IGNORECASE)
#: Where text-only elements end.
ENDS = {name: re.compile(rb"</" + name + rb"(?=[\t\n\f\r />])", re.IGNORECASE) for name in _TEXT_ONLY}


Match = Callable[[bytes, int, int], "re.Match[bytes] | None"]

#: What else decides about a ``link`` or ``script``.
_CONDITIONS = {
    b"link": (b"rel", b"as", b"integrity", b"crossorigin"),
    b"script": (b"integrity", b"crossorigin"),
}


@lru_cache(maxsize=16)
def finders(attributes: tuple[bytes, ...]) -> Mapping[bytes, tuple[Mapping[bytes, Kind], Match]]:
    """By element: the places, and what finds them within a whole tag.

    It matches from the place it is given, through other attributes, to behind the next one of interest; its groups
    are those of :data:`PAIR`.

    :param attributes: of the site's own, besides the standard's, as in :func:`lbarray.rewrite.places.with_own`.
    """
    found: dict[bytes, tuple[Mapping[bytes, Kind], Match]] = {}
    for element, places in with_own(attributes).items():
        names = {*places, *_CONDITIONS.get(element, ())}
        wanted = _any_of(names) + rb"(?=[" + _SPACE + rb"/>=])"
        pattern = re.compile(
            rb"(?:" + _BETWEEN + rb"(?!" + wanted + rb")" + _ATTRIBUTE + rb")*+" + _BETWEEN + rb"(" + wanted + rb")"
            rb"" + _PAIR_VALUE
        )
        found[element] = (places, pattern.match)
    return found
