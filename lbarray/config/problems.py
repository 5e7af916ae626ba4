"""From everything that went wrong while reading, to what an operator can act on."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import attrs
from cattrs import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote

from lbarray.config.scalars import Accepts, Rejected
from lbarray.errors import Problem

__all__ = ["nearest", "problems_of", "shown"]


def shown(found: object) -> str:
    """A found value as the operator would write it, cut where it is long."""
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, dict):
        return "a table"
    if isinstance(found, list | tuple):
        return "a list"
    text = f'"{found}"' if isinstance(found, str) else str(found)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """What is accepted instead of the unknown ``word``: the likeliest first."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    listed = ", ".join(names)
    return f'"{close[0]}" (nearest known key), of: {listed}' if close else f"one of: {listed}"


def _words(wanted: Any) -> str:
    if get_origin(wanted) is Annotated:
        for extra in get_args(wanted)[1:]:
            if isinstance(extra, Accepts):
                return extra.words
    if get_origin(wanted) in (Union, types.UnionType):
        inner = [arm for arm in get_args(wanted) if arm is not type(None)]
        return _words(inner[0]) if len(inner) == 1 else " or ".join(_words(arm) for arm in inner)
    if attrs.has(wanted):
        keys = ", ".join(field.name for field in attrs.fields(wanted))
        return f"a table with the keys {keys}"
    if get_origin(wanted) is dict:
        return f"a table of names, each holding {_words(get_args(wanted)[1])}"
    if get_origin(wanted) is tuple:
        arms = [arm for arm in get_args(wanted) if arm is not Ellipsis]
        number = "" if ... in get_args(wanted) else f"{len(arms)} of "
        return f"a list: {number}{_words(arms[0])}"
    return str(getattr(wanted, "__name__", wanted))


def _at(data: object, path: tuple[str | int, ...]) -> object:
    for step in path:
        try:
            data = data[step]  # type: ignore[index]  # wrong shapes are exactly what is looked for
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text or "(the file)"


def problems_of(error: BaseException, data: object, root: type) -> Iterator[Problem]:
    """Every mistake in the tree of exceptions that cattrs raised while it read ``data``."""
    yield from _walk(error, data, (), root)


def _walk(error: BaseException, data: object, path: tuple[str | int, ...], wanted: Any) -> Iterator[Problem]:
    is_name = False
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path, wanted = (*path, note.name), note.type
        elif isinstance(note, IterableValidationNote):
            path, wanted = (*path, note.index), note.type
            is_name = "mapping key" in note
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _walk(inner, data, path, wanted)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        for extra in sorted(error.extra_fields):
            yield Problem(_dotted((*path, extra)), "an unknown key", nearest(extra, known))
    elif isinstance(error, Rejected):
        said = "the name " if is_name else ""
        yield Problem(_dotted(path), said + shown(error.found), error.accepted)
    elif isinstance(error, KeyError):
        yield Problem(_dotted(path), "nothing", _words(wanted))
    else:
        yield Problem(_dotted(path), shown(_at(data, path)), _words(wanted))
