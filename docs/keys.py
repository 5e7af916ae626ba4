"""A Sphinx extension: every key of the configuration, its default and what it accepts, from the model itself."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import attrs

from lbarray.config.changes import FIXED, PROCESSES_FIXED
from lbarray.config.model import Config
from lbarray.config.scalars import Accepts, HostPort


def meanings(cls: type) -> dict[str, str]:
    """What a class says of its attributes (``:ivar name: …``), its bases included."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        text = re.sub(r"\s+", " ", each.__doc__ or "")
        for name, said in re.findall(r":ivar (\w+): (.*?)(?= :ivar |$)", text):
            found[name] = said.strip()
    return found


def accepted(wanted: Any) -> str:
    """In words."""
    if get_origin(wanted) is Annotated:
        return next((extra.words for extra in get_args(wanted)[1:] if isinstance(extra, Accepts)), "")
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(accepted(arm) for arm in get_args(wanted) if arm is not type(None))
    if get_origin(wanted) is tuple:
        arms = [arm for arm in get_args(wanted) if arm is not Ellipsis]
        if attrs.has(_plain(arms[0])):
            return "tables"
        return (
            f"a list of {len(arms)}: {accepted(arms[0])}"
            if ... not in get_args(wanted)
            else (f"a list, each {accepted(arms[0])}")
        )
    if get_origin(wanted) is dict:
        return (
            "tables by name" if attrs.has(_plain(get_args(wanted)[1])) else f"by name, {accepted(get_args(wanted)[1])}"
        )
    return "a table" if attrs.has(wanted) else str(getattr(wanted, "__name__", wanted))


def _plain(wanted: Any) -> Any:
    return get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted


def inner_table(wanted: Any) -> tuple[type, str] | None:
    """The class of the table that this type holds, and how its name goes on: ``""``, ``.NAME`` or ``[]``."""
    wanted = _plain(wanted)
    if get_origin(wanted) in (Union, types.UnionType):
        arms = [arm for arm in get_args(wanted) if arm is not type(None)]
        return inner_table(arms[0]) if len(arms) == 1 else None
    if get_origin(wanted) is dict:
        inner = inner_table(get_args(wanted)[1])
        return (inner[0], ".NAME" + inner[1]) if inner else None
    if get_origin(wanted) is tuple:
        inner = inner_table(get_args(wanted)[0])
        return (inner[0], "[]" + inner[1]) if inner else None
    return (wanted, "") if attrs.has(wanted) and wanted is not HostPort else None


def default(field: Any) -> str:
    """As one writes it in the file."""
    value = field.default
    if value is attrs.NOTHING:
        return "must be given"
    if isinstance(value, attrs.Factory) or value is None or value == ():  # type: ignore[arg-type]
        return "none"
    if isinstance(value, bool):
        return "``true``" if value else "``false``"
    if isinstance(value, float):
        return f"``{value:g}``"
    return f"``{value}``" if isinstance(value, int) else f'``"{value}"``'


def sections(cls: type = Config, path: str = "") -> Iterator[tuple[str, type]]:
    """Every table of the file: ``[pools.NAME.check]``, with its class."""
    hints = get_type_hints(cls, include_extras=True)
    if path:
        yield path, cls
    for field in attrs.fields(cls):
        inner = inner_table(hints[field.name])
        if inner is not None and inner[0] is not cls:
            yield from sections(inner[0], f"{path}.{field.name}{inner[1]}".strip("."))


def lines() -> Iterator[str]:
    """The page's generated part."""
    for path, cls in sections():
        shown = f"[[{path.removesuffix('[]')}]]" if path.endswith("[]") else f"[{path}]"
        yield from ("", f".. _key-{path}:", "", f"``{shown}``", '"' * (len(shown) + 4), "")
        about = re.sub(r"\s+", " ", (cls.__doc__ or "").partition(":ivar")[0]).strip()
        yield from (about, "", ".. list-table::", "   :header-rows: 1", "   :widths: 18 14 28 40", "")
        yield from ("   * - key", "     - default", "     - accepts", "     - meaning")
        hints, said = get_type_hints(cls, include_extras=True), meanings(cls)
        for field in attrs.fields(cls):
            yield f"   * - ``{field.name}``"
            yield f"     - {default(field)}"
            yield f"     - {accepted(hints[field.name])}".replace("*", "\\*")
            yield f"     - {said.get(field.name, '')}"


def restart_lines() -> Iterator[str]:
    """What needs a restart, and why."""
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: 40 60", "")
    yield from ("   * - needs a restart", "     - because")
    for key, why in FIXED.items():
        more = " (but for priority and weight)" if key == "array.nodes" else ""
        yield from (f"   * - ``{key}``{more}", f"     - {why}")
    yield from ("   * - ``worker.processes``, from 0 or to 0", f"     - {PROCESSES_FIXED}")


def write(app: Any) -> None:
    """Before anything is read."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    for name, made in (("keys.txt", lines()), ("restart.txt", restart_lines())):
        text = "\n".join(made) + "\n"
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app: Any) -> dict[str, bool]:
    """For Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
