"""Commands that change a node's part in the array."""

from __future__ import annotations

import argparse
import sys
import time

from lbarray.commands.client import NodeClient
from lbarray.commands.registry import Commands, connect, show

__all__ = ["add"]

#: Seconds between two looks at what remains.
WAIT_S = 0.5


def add(commands: Commands) -> None:
    """``drain`` and ``undrain``."""
    command = commands.add_remote("drain", drain)
    command.add_argument("name", nargs="?", metavar="NODE", help="a node, or POOL/BACKEND; without it, the node asked")
    command.add_argument("--wait", action="store_true", help="show what remains until the node is empty")
    command.add_argument("--force", action="store_true", help="also when no other node takes clients")
    command = commands.add_remote("undrain", undrain)
    command.add_argument("name", nargs="?", metavar="NODE", help="a node, or POOL/BACKEND; without it, the node asked")


def drain(arguments: argparse.Namespace) -> int:
    """Let a node take no new clients, or give a back end none; those that are there stay until they leave."""
    node = connect(arguments)
    if arguments.name and "/" in arguments.name:
        pool, _, backend = arguments.name.rpartition("/")
        return show(arguments, node.perform("drain-backend", pool=pool, backend=backend, draining=True))
    ordered = node.perform("drain", name=arguments.name, draining=True, force=arguments.force)
    code = show(arguments, ordered)
    return _wait(node, str(ordered["node"])) if arguments.wait else code


def undrain(arguments: argparse.Namespace) -> int:
    """Let a node, or a back end, have new clients again."""
    node = connect(arguments)
    if arguments.name and "/" in arguments.name:
        pool, _, backend = arguments.name.rpartition("/")
        return show(arguments, node.perform("drain-backend", pool=pool, backend=backend, draining=False))
    return show(arguments, node.perform("drain", name=arguments.name, draining=False))


def _wait(node: NodeClient, name: str) -> int:
    """Say how many connections are left whenever that changes, until none is; 1 when draining was ended."""
    last = None
    while True:
        time.sleep(WAIT_S)
        found = node.ask("draining")["nodes"].get(name)
        if found is None:
            if last is None:
                continue  # the order is there, and the node's next heartbeat is on its way
            print(f"node {name} is not draining any more", file=sys.stderr)
            return 1
        if found["connections"] != last:
            last = found["connections"]
            print(f"node {name} is empty" if found["empty"] else f"node {name}: {last} connections left", flush=True)
        if found["empty"]:
            return 0
