"""Commands that need no running node: they work on a file or on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from lbarray.commands.registry import Commands
from lbarray.config.load import load
from lbarray.config.summary import summary
from lbarray.errors import BadConfig
from lbarray.telemetry.counters import Counters

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``check``, ``cleanup``, ``demo``."""
    command = commands.add("check", check)
    command.add_argument("file", type=Path, metavar="FILE")

    command = commands.add("cleanup", cleanup)
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--node", help="which node of the file this machine is")

    command = commands.add("demo", demo)
    command.add_argument("--once", action="store_true", help="end by itself; exit 0 only if all of it worked")
    command.add_argument("--json", type=Path, default=Path("demo.json"), help="where to write what happened")


def check(arguments: argparse.Namespace) -> int:
    """Say everything that is wrong with a configuration, or what it will do."""
    from lbarray.node.backend_parts import unknown_plugins
    from lbarray.node.rewriting import rewriting_settings

    config = load(arguments.file)
    if problems := unknown_plugins(config):
        raise BadConfig(problems, str(arguments.file))
    rewriting_settings(config=config, counters=Counters())  # it asks the plug-ins
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
