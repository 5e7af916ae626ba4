"""Commands that change back ends while nodes run."""

from __future__ import annotations

import argparse

from lbarray.commands.registry import Commands, connect, show
from lbarray.errors import ArrayError

__all__ = ["add", "pool_and_name"]


class BadBackend(ArrayError):
    """A back end is named ``POOL/BACKEND``."""


def add(commands: Commands) -> None:
    """``weigh``, ``add``, ``remove``."""
    for name, run in (("weigh", weigh), ("add", add_backend), ("remove", remove)):
        command = commands.add_remote(name, run)
        command.add_argument("backend", metavar="POOL/BACKEND", help="or a node" if run is weigh else None)
        if name == "add":
            command.add_argument("address", metavar="HOST:PORT")
            command.add_argument("--weight", type=int, default=1, help="its part of the pool (1)")
        elif name == "weigh":
            command.add_argument("weight", type=int)
        command.add_argument("--here", action="store_true", help="on this node only, not on all of the array")


def pool_and_name(text: str) -> tuple[str, str]:
    """:raises BadBackend: it is not ``POOL/BACKEND``."""
    pool, slash, name = text.rpartition("/")
    if not (slash and pool and name):
        raise BadBackend(f"found {text!r}; accepted: POOL/BACKEND, such as web/w1 (lbarray status lists them)")
    return pool, name


def weigh(arguments: argparse.Namespace) -> int:
    """Change a back end's part of its pool, or a node's of the clients, until the next start or reload."""
    node = connect(arguments)
    if "/" not in arguments.backend and not arguments.here:
        return show(arguments, node.perform("weigh", name=arguments.backend, weight=arguments.weight))
    pool, name = pool_and_name(arguments.backend)
    values = {"pool": pool, "backend": name, "weight": arguments.weight, "everywhere": not arguments.here}
    return show(arguments, node.perform("weigh-backend", **values))


def add_backend(arguments: argparse.Namespace) -> int:
    """Add a back end to a pool, until the next start or reload."""
    pool, name = pool_and_name(arguments.backend)
    node = connect(arguments)
    values = {"address": arguments.address, "weight": arguments.weight, "everywhere": not arguments.here}
    return show(arguments, node.perform("add-backend", pool=pool, backend=name, **values))


def remove(arguments: argparse.Namespace) -> int:
    """Take a back end out of its pool, until the next start or reload; what it has in hand goes on to its end."""
    pool, name = pool_and_name(arguments.backend)
    node = connect(arguments)
    return show(arguments, node.perform("remove-backend", pool=pool, backend=name, everywhere=not arguments.here))
