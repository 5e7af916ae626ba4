"""Commands that change the configuration that a node runs by."""

from __future__ import annotations

import argparse

from lbarray.commands.registry import Commands, connect, show

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``reload``."""
    commands.add_remote("reload", reload)


def reload(arguments: argparse.Namespace) -> int:
    """Let a node take up its configuration file as it is now: whole or not at all, and without losing a connection."""
    return show(arguments, connect(arguments).perform("reload"))
