"""Commands that change a node's part in the array."""

from __future__ import annotations

import argparse

from lbarray.commands.registry import Commands, connect, show

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``drain``."""
    command = commands.add_remote("drain", drain)
    command.add_argument("backend", nargs="?", metavar="POOL/BACKEND", help="a back end; without it, the node itself")
    command.add_argument("--end", action="store_true", help="take new clients again")


def drain(arguments: argparse.Namespace) -> int:
    """Take no new clients on a node, or give none to a back end; those that are here stay until they leave."""
    node = connect(arguments)
    draining = not arguments.end
    if arguments.backend is None:
        return show(arguments, node.perform("drain", draining=draining))
    pool, _, backend = arguments.backend.rpartition("/")
    return show(arguments, node.perform("drain-backend", pool=pool, backend=backend, draining=draining))
