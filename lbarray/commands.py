"""The commands of ``lbarray``: each takes parsed arguments and returns its exit code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lbarray.config.load import load
from lbarray.config.summary import summary
from lbarray.errors import ArrayError

__all__ = ["main"]


def check(arguments: argparse.Namespace) -> int:
    """Say everything that is wrong with a configuration, or what it will do."""
    config = load(arguments.file)
    print(summary(config))
    return 0


def cleanup(arguments: argparse.Namespace) -> int:
    """Undo what a killed node left on this machine: addresses, sysctls, classifiers."""
    from lbarray.node import journal_of, node_name

    config = load(arguments.file)
    journal = journal_of(config, node_name(config, arguments.node, str(arguments.file)))
    journal.lock()
    undone = journal.undo_all()
    for undo in undone:
        print(f"undone: {undo}")
    if not undone:
        print("nothing to undo")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """An array in network namespaces of this machine."""
    from lbarray.testbed.demo import run

    return run(once=arguments.once, json_path=arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbarray",
        description="Work with a load balancing array. The daemon itself: twistd lbarray --help",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("check", help=check.__doc__)
    command.add_argument("file", type=Path, metavar="FILE")
    command.set_defaults(run=check)

    command = commands.add_parser("cleanup", help=cleanup.__doc__)
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--node", help="which node of the file this machine is")
    command.set_defaults(run=cleanup)

    command = commands.add_parser("demo", help=demo.__doc__)
    command.add_argument("--once", action="store_true", help="end by itself; exit 0 only if all of it worked")
    command.add_argument("--json", type=Path, default=Path("demo.json"), help="where to write what happened")
    command.set_defaults(run=demo)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors that lbarray foresees are one message, not a traceback."""
    arguments = _parser().parse_args(argv)
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
