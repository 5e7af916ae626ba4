"""From a TOML file to a :class:`Config`, whole or not at all."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import attrs
from cattrs import Converter
from cattrs.errors import BaseValidationError

from lbarray.config.checks import missing_files, wrong_meaning
from lbarray.config.model import Config
from lbarray.config.problems import problems_of
from lbarray.config.scalars import Accepts
from lbarray.errors import BadConfig, Problem

__all__ = ["ConfigFile", "load", "load_file", "parse"]


@attrs.frozen
class ConfigFile:
    """A configuration with the file that it came from.

    :ivar octets: the file's content.
    """

    config: Config
    path: Path
    octets: bytes

    @property
    def version(self) -> str:
        """What nodes compare: the first twelve digits that ``sha256sum`` prints of the file."""
        return hashlib.sha256(self.octets).hexdigest()[:12]


def load(path: Path) -> Config:
    """Read, check and return the configuration in a file; its relative paths start at its folder.

    :raises BadConfig: everything that is wrong with it, also files that it names and nobody can read.
    """
    return load_file(path).config


def load_file(path: Path, octets: bytes | None = None) -> ConfigFile:
    """The same, with what it was read from.

    :param octets: what would stand in the file; none given means: what stands there.
    :raises BadConfig: everything that is wrong with it.
    """
    try:
        content = path.read_bytes() if octets is None else octets
        text = content.decode("utf-8")
    except OSError as error:
        found = Problem("(the file)", error.strerror or str(error), "a TOML file that can be read")
        raise BadConfig([found], str(path)) from None
    except UnicodeDecodeError as error:
        found = Problem("(the file)", f"octet {error.object[error.start]:#04x}", "TOML text in UTF-8")
        raise BadConfig([found], str(path)) from None
    config = parse(text, source=str(path), folder=path.resolve().parent)
    problems = missing_files(config)
    if problems:
        raise BadConfig(problems, str(path))
    return ConfigFile(config, path, content)


def parse(text: str, *, source: str = "configuration", folder: Path = Path("/")) -> Config:
    """The configuration that a TOML text says. ``folder`` is where its relative paths start.

    :raises BadConfig: all mistakes of syntax, of single values and of what refers to what.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadConfig([Problem("(the file)", str(error), "TOML 1.0")], source) from None
    try:
        config = CONVERTER.structure(data, Config)
    except BaseValidationError as error:
        raise BadConfig(problems_of(error, data, Config), source) from None
    problems = wrong_meaning(config)
    if problems:
        raise BadConfig(problems, source)
    resolved: Config = _with_folder(config, folder)
    return resolved


def _with_folder(value: Any, folder: Path) -> Any:
    """The same value with every relative path in it made absolute."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, dict):
        return {key: _with_folder(inner, folder) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(_with_folder(inner, folder) for inner in value)
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))
        return attrs.evolve(value, **{field.name: _with_folder(getattr(value, field.name), folder) for field in fields})
    return value


def _accepts(wanted: Any) -> Accepts | None:
    """The reader tied to an annotated scalar, or to an optional one."""
    if get_origin(wanted) is Annotated:
        return next((extra for extra in get_args(wanted)[1:] if isinstance(extra, Accepts)), None)
    arms = get_args(wanted)
    if type(None) in arms and len(arms) == 2:
        return _accepts(arms[0] if arms[1] is type(None) else arms[1])
    return None


def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)

    def scalar(wanted: Any) -> Any:
        read = _accepts(wanted)
        assert read is not None
        return lambda found, _: read(found)

    def sequence(wanted: Any) -> Any:
        # Strings are iterable too: without this, vips = "10.0.0.1" would be read letter by letter.
        arms = get_args(wanted)
        as_list = list[arms[0]]  # type: ignore[valid-type]

        def structure(found: object, _: Any) -> tuple[Any, ...]:
            if not isinstance(found, list) or (arms[-1] is not Ellipsis and len(found) != len(arms)):
                raise TypeError(found)
            return tuple(converter.structure(found, as_list))

        return structure

    def is_tuple(wanted: Any) -> bool:
        origin: Any = get_origin(wanted)
        return origin is tuple

    converter.register_structure_hook_factory(is_tuple, sequence)
    converter.register_structure_hook_factory(lambda wanted: _accepts(wanted) is not None, scalar)
    return converter


CONVERTER = _converter()
