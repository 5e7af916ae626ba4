"""Commands that look at a running node and change nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from lbarray.commands.registry import Commands, connect, show
from lbarray.console.tables import status_tables

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``status``."""
    commands.add_remote("status", status)


def status(arguments: argparse.Namespace) -> int:
    """The array, the services and the back ends as this node sees them."""
    found: Mapping[str, object] = connect(arguments).status()
    return show(arguments, found, status_tables)
