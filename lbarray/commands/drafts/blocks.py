"""Files of directives and braces, as nginx and keepalived write them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

from lbarray.errors import ArrayError

__all__ = ["Directive", "NotReadable", "read_blocks"]

_TOKEN = re.compile(r"""\s+|[#!][^\n]*|"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|([{};])|([^\s{};"']+)""", re.DOTALL)


class NotReadable(ArrayError):
    """A file that is not what it was taken for."""


@attrs.define
class Directive:
    """Words, and a block where there is one. ``line`` is where it begins."""

    words: list[str]
    line: int
    block: list[Directive] | None = None

    def __str__(self) -> str:
        return f"line {self.line}: {' '.join(self.words)}"

    @property
    def name(self) -> str:
        """Its first word."""
        return self.words[0]

    def all(self, name: str) -> Iterator[Directive]:
        """Those in its block that begin with this word."""
        return (inner for inner in self.block or () if inner.name == name)

    def value(self, name: str, default: str = "") -> str:
        """The second word of the first one in its block that begins with this word."""
        return next((inner.words[1] for inner in self.all(name) if len(inner.words) > 1), default)


def _tokens(text: str, by_line: bool) -> Iterator[tuple[str, int, bool]]:
    """(word, line, whether it is punctuation)"""
    line, at = 1, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotReadable(f"line {line}: {text[at : at + 20]!r} does not belong here")
        double, single, mark, bare = match.groups()
        if mark:
            yield mark, line, True
        elif bare is not None or double is not None or single is not None:
            yield next(part for part in (bare, double, single) if part is not None), line, False
        elif by_line and "\n" in match[0]:
            yield ";", line, True
        line += match[0].count("\n")
        at = match.end()


def read_blocks(text: str, *, by_line: bool = False) -> list[Directive]:
    """The directives of a file.

    :param by_line: a line's end ends a directive (keepalived); otherwise a semicolon does (nginx).
    :raises NotReadable: braces that do not match.
    """
    top = Directive([], 1, [])
    open_blocks = [top]
    words: list[str] = []
    begun = 1
    for word, line, mark in _tokens(text, by_line):
        here = open_blocks[-1].block
        assert here is not None
        if not mark:
            if not words:
                begun = line
            words.append(word)
        elif word == "{":
            if not words and here and here[-1].block is None and by_line:
                block = here[-1]  # the brace stands on a line of its own
                block.block = []
            else:
                block = Directive(words or [""], begun, [])
                here.append(block)
            open_blocks.append(block)
            words = []
        else:
            if words:
                here.append(Directive(words, begun))
            words = []
            if word == "}":
                if len(open_blocks) == 1:
                    raise NotReadable(f"line {line}: a }} too many")
                open_blocks.pop()
    if len(open_blocks) > 1:
        raise NotReadable(f"the block of line {open_blocks[-1].line} is not closed")
    if words:
        top.block.append(Directive(words, begun))  # type: ignore[union-attr]
    return top.block or []
