"""Commands that change the configuration that a node runs by."""

from __future__ import annotations

import argparse
from pathlib import Path

from lbarray.commands.registry import Commands, connect, show
from lbarray.errors import SystemRefused

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``reload``, ``push``."""
    commands.add_remote("reload", reload)

    command = commands.add_remote("push", push)
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the configuration")
    what.add_argument("--roll-back", action="store_true", help="push the one that this node ran before the last push")
    command.add_argument(
        "--stage", action="store_true", help="only write it to the nodes' files; they run it after their next restart"
    )
    command.add_argument("--absent-ok", action="store_true", help="nodes that are missing need not have it")


def reload(arguments: argparse.Namespace) -> int:
    """Let a node take up its configuration file as it is now: whole or not at all, and without losing a connection."""
    return show(arguments, connect(arguments).perform("reload"))


def push(arguments: argparse.Namespace) -> int:
    """Give the whole array a configuration: checked by all nodes, then taken up by all, or by none."""
    node = connect(arguments)
    if arguments.roll_back:
        return show(arguments, node.perform("roll-back", absent_ok=arguments.absent_ok))
    try:
        text = arguments.file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemRefused(f"read {arguments.file}", detail=getattr(error, "strerror", "") or str(error)) from None
    return show(arguments, node.perform("push", text=text, stage=arguments.stage, absent_ok=arguments.absent_ok))
