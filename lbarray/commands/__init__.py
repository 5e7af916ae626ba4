"""The commands of ``lbarray``. Each takes parsed arguments and returns its exit code.

One module for each subject, named in :data:`SUBJECTS`; its ``add`` gives its commands to the registry.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from lbarray.commands import array, backends, certificates, configuration, failover, look, machine, rewriting, top
from lbarray.commands.registry import Commands
from lbarray.errors import ArrayError

__all__ = ["main"]

SUBJECTS: tuple[ModuleType, ...] = (
    machine,
    look,
    top,
    array,
    backends,
    failover,
    certificates,
    configuration,
    rewriting,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors that lbarray foresees are one message, not a traceback."""
    commands = Commands()
    for subject in SUBJECTS:
        subject.add(commands)
    arguments = commands.parser.parse_args(argv)
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
