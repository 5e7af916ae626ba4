"""The commands of ``lbarray``. Each takes parsed arguments and returns its exit code.

One module for each subject; its ``add`` gives its commands to the registry. A module that is here is found.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType

from lbarray.commands.registry import Commands
from lbarray.errors import ArrayError

__all__ = ["main", "parser"]

#: What ``lbarray --help`` says first; the other subjects follow by name.
FIRST = ("begin", "doctor", "machine", "look", "top")


def _subjects() -> Iterator[ModuleType]:
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.ispkg]
    for name in sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name)):
        module = import_module(f"{__name__}.{name}")
        if hasattr(module, "add"):
            yield module


def parser() -> argparse.ArgumentParser:
    """Knows every command and its options."""
    commands = Commands()
    for subject in _subjects():
        subject.add(commands)
    return commands.parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors that lbarray foresees are one message, not a traceback."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ArrayError as error:
        print(f"lbarray: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    return code
