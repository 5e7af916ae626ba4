"""The grammar of HTML's tokens, as far as it decides where tags begin and end (WHATWG HTML §13.2.5).

Regular expressions over octets whose every loop is possessive: each is linear in its input. None matches a token
that the buffer's end may have cut: what does not match waits for more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import attrs

from lbarray.extensions import not_used
from lbarray.rewrite.places import Places, places

try:
    from lbarray.rewrite import _scan

    COMPILED = True
except ImportError as error:
    not_used("lbarray.rewrite._scan", error)
    COMPILED = False

__all__ = [
    "BEGUN_VALUE",
    "CDATA",
    "COMMENT_END",
    "COMPILED",
    "CONTEXTS",
    "ENDS",
    "FOREIGN",
    "FOREIGN_SKIP",
    "NOSCRIPT_END",
    "PAIR",
    "SCRIPT_MARK",
    "START",
    "TAG",
    "TEXT_ONLY",
    "WHOLE_ATTRIBUTES",
    "Grammar",
    "grammar",
]

_SPACE = rb"\t\n\f\r "
_NAME = rb"(?:=[^" + _SPACE + rb"/>=]*+|[^" + _SPACE + rb"/>=]++)"
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^" + _SPACE + rb">\"'][^" + _SPACE + rb">]*+|(?=>))"
_EQUALS = rb"[" + _SPACE + rb"]*+=[" + _SPACE + rb"]*+"
# A name with "=" must have its value in the buffer: otherwise the tag is not complete yet. Most look like the first.
_ATTRIBUTE = rb"(?:[a-zA-Z-]++=\"[^\"]*+\"|" + _NAME + rb"(?:" + _EQUALS + _VALUE + rb"|(?!" + _EQUALS + rb")))"
_BETWEEN = rb"[" + _SPACE + rb"/]*+"
_ATTRIBUTES = rb"(?:" + _BETWEEN + _ATTRIBUTE + rb")*+" + _BETWEEN + rb">"
_NAME_ENDS = rb"(?=[" + _SPACE + rb"/>])"
_COMMENT = rb"!--(?:-?>|(?:[^-]++|-(?!-!?>))*+--!?>)"

#: Elements whose content is no markup (§13.2.6.2: raw text and escapable raw text).
TEXT_ONLY = frozenset(
    [b"script", b"style", b"textarea", b"title", b"xmp", b"iframe", b"noembed", b"noframes", b"plaintext"]
)
#: Where the rules of text-only elements, of ``/>`` and of CDATA are others (§13.2.6.5).
FOREIGN = frozenset([b"svg", b"math"])
#: Where a tree builder passes over tags, or, without scripts, over none (see :mod:`lbarray.rewrite.html`).
CONTEXTS = frozenset([b"select", b"template", b"frameset", b"noscript", b"col"])
_CONTEXT_ENDS = frozenset([b"select", b"template", b"noscript"])


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


#: Any whole tag: the slash of an end tag; its name; its attributes; what stands before its ``>``.
TAG = re.compile(rb"<(/?)([a-zA-Z][^" + _SPACE + rb"/>]*+)((?:" + _BETWEEN + _ATTRIBUTE + rb")*+)(" + _BETWEEN + rb")>")
CDATA = b"<![CDATA["
#: The name of a tag that is not complete.
START = re.compile(rb"</?([a-zA-Z][^" + _SPACE + rb"/>]*+)" + _NAME_ENDS)
#: Attributes of a tag that is not complete, but for one that may go on.
WHOLE_ATTRIBUTES = re.compile(
    rb"(?:" + _BETWEEN + _NAME + rb"(?:" + _EQUALS + _VALUE + rb"(?!\Z)"
    rb"|(?=[" + _SPACE + rb"]*+[^" + _SPACE + rb"=])))*+" + _BETWEEN
)
#: An attribute up to its value's opening quotation mark.
BEGUN_VALUE = re.compile(_NAME + _EQUALS + rb"([\"'])")
_PAIR_VALUE = rb"(?:" + _EQUALS + rb"(" + _VALUE[3:-1] + rb"))?+"
#: One attribute of a whole tag: its name, its value with quotation marks if it has one.
PAIR = re.compile(_BETWEEN + rb"(" + _NAME + rb")" + _PAIR_VALUE)
COMMENT_END = re.compile(rb"--!?>")
SCRIPT_MARK = re.compile(rb"<!--|-->|<script(?=[\t\n\f\r />])|</script(?=[\t\n\f\r />])", re.IGNORECASE)
#: Where text-only elements end.
ENDS = {name: re.compile(rb"</" + name + rb"(?=[\t\n\f\r />])", re.IGNORECASE) for name in TEXT_ONLY}
NOSCRIPT_END = re.compile(rb"</noscript(?=[\t\n\f\r />])", re.IGNORECASE)
#: Within SVG, from tag to tag, past comments and shapes that hold nothing.
FOREIGN_SKIP = re.compile(
    rb"(?:[^<]++|<" + _COMMENT + rb"|<(path|rect|circle|line|polyline|polygon|ellipse|stop)"
    rb"(?:[" + _SPACE + rb"]++(?!style|background|data)[a-z-]++=\"[^\"]*+\")*+[" + _SPACE + rb"]*+(?:/>|></\1>))*+"
)

#: What else decides about an element, so that a URL alone does not.
_CONDITIONS = (b"rel", b"as", b"integrity", b"crossorigin", b"type")
#: Within a tag: what is neither a value nor the sign before one.
_NAMES = rb"[^<>\"'=]*+"


def _any_case(name: bytes) -> bytes:
    letters = (name[place : place + 1] for place in range(len(name)))
    return b"".join(b"[" + each + each.upper() + b"]" if each.isalpha() else re.escape(each) for each in letters)


def _not_behind(names: Iterable[bytes]) -> bytes:
    """Not behind one of these names, nor behind others that end like them: for them a slower pattern decides."""
    ends = sorted({name[-3:] for name in names if len(name) > 2})
    short = sorted(name for name in names if len(name) < 3)
    alternatives = [ends, *([name] for name in short)]
    return b"".join(rb"(?<!" + b"|".join(map(_any_case, each)) + rb")" for each in alternatives if each)


def _common(names: Iterable[bytes]) -> bytes:
    """Attributes as most are written, with double quotation marks, but those of these names. It begins behind an
    element's name; an ``=`` behind a letter ends a name there, and ``="`` begins a value."""
    return _NAMES + rb"(?:(?<=[a-zA-Z0-9])" + _not_behind(names) + rb"=\"[^\"]*+\"" + _NAMES + rb")*+"


Scan = Callable[[bytes, int, int], tuple[int, int, int, bytes | None, bytes | None]]


def _scan_by(pattern: re.Pattern[bytes]) -> Scan:
    match = pattern.match

    def scan(data: bytes, at: int, size: int) -> tuple[int, int, int, bytes | None, bytes | None]:
        found = match(data, at, size)
        assert found is not None  # it matches the empty string as well
        return found.end(), found.start(1) - 1, found.start(2), found[1], found[2]

    return scan


@attrs.frozen(eq=False)
class Grammar:
    """What to stop at in one set of places.

    :ivar scan: (data, from where, up to where) from anywhere in markup to the next tag of interest, or to what is not
        complete: where that is. When that tag is one with a ``src`` and nothing else that matters, it goes on to behind
        it, and says where the tag and the ``src``'s value begin, the element's name, and the value with its quotation
        marks.
    :ivar kinds: the places.
    """

    scan: Scan
    kinds: Places


@lru_cache(maxsize=16)
def grammar(
    attributes: tuple[bytes, ...] = (), css: bool = True, embeds: bool = False, compiled: bool = COMPILED
) -> Grammar:
    """The first arguments are those of :func:`lbarray.rewrite.places.places`.

    :param compiled: scan by ``_scan.c``, several times as fast, instead of by a regular expression.
    """
    kinds = places(attributes, css=css, embeds=embeds)
    elements = kinds.elements
    stops = {*elements, *TEXT_ONLY, *FOREIGN, *CONTEXTS, b"base", b"meta"}
    named = _any_of(stops) + _NAME_ENDS
    ends = _any_of(_CONTEXT_ENDS) + _NAME_ENDS
    everywhere = _any_of({*kinds.everywhere}) + rb"(?=[" + _SPACE + rb"/>=])"
    # A style attribute without parenthesis holds no URL.
    harmless = rb"|[sS][tT][yY][lL][eE]=(?:\"[^\"(]*+\"|'[^'(]*+')" if b"style" in kinds.everywhere else rb""
    plain = rb"(?:(?!" + everywhere + rb")" + _ATTRIBUTE + harmless + rb")"
    name = rb"[a-zA-Z][^" + _SPACE + rb"/>]*+"
    skip = (
        rb"(?:[^<]*+<(?:"
        rb"/(?!" + ends + rb")[a-zA-Z0-9]++>"
        rb"|(?!" + named + rb")" + name + rb"(?:>|" + _common(kinds.everywhere) + rb">"
        rb"|(?:" + _BETWEEN + plain + rb")*+" + _BETWEEN + rb">)"
        rb"|/(?!" + ends + rb")" + name + _ATTRIBUTES + rb"|/(?=[^a-zA-Z])[^>]*+>"
        rb"|" + _COMMENT + rb"|!(?!--|\[CDATA\[)[^>]*+>|\?[^>]*+>|(?=[^a-zA-Z/!?])))*+[^<]*+"
    )
    deciding = {*_CONDITIONS, *kinds.everywhere}
    deciding.update(attribute for held in elements.values() for attribute in held)
    simple = {element for element, held in elements.items() if b"src" in held and element != b"image"}
    if compiled:
        lists = (stops, _CONTEXT_ENDS, kinds.everywhere, simple, deciding)
        if all(len(names) <= 64 and max(map(len, names)) <= 24 for names in lists):
            return Grammar(_scan.Scanner(*(tuple(sorted(names)) for names in lists)).scan, kinds)
    others = _common(deciding)
    single = (
        rb"(?:<(" + _any_of(simple) + rb")(?=[" + _SPACE + rb"])" + others + rb"(?<=[" + _SPACE + rb"][sS][rR][cC])"
        rb"=(\"[^\"]*+\"|'[^']*+')" + others + rb">)?+"
    )
    return Grammar(_scan_by(re.compile(skip + single)), kinds)
