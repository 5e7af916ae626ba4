"""``lbarray workers``: the processes that serve clients, and replacing them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from lbarray.commands.registry import Commands, connect, show
from lbarray.console.tables import table

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``workers``."""
    commands.add_showing("workers", workers, instead="replace")


def workers(arguments: argparse.Namespace) -> int:
    """The worker processes of a node; or replace them by new ones, as after an upgrade, without losing a connection."""
    client = connect(arguments)
    if arguments.what == "replace":
        return show(arguments, client.perform("replace-workers"))
    found = client.status().get("workers")
    return show(arguments, found if isinstance(found, Mapping) else {}, _rows)


def _rows(found: Mapping[str, object]) -> str:
    processes = found.get("processes")
    if not isinstance(processes, list):
        return "this node serves in its own process (worker.processes = 0)"
    heads = ("place", "pid", "generation", "state", "up s", "connections", "cpu", "lag ms", "memory MB")
    return table(
        list(heads),
        [
            [
                each["place"],
                each["pid"],
                each["generation"],
                each["role"] if each["ready"] else "starting",
                each["up_s"],
                each["connections"],
                f"{each['cpu']:.0%}",
                f"{1000 * each['lag_s']:.0f}",
                f"{each['memory'] / 1e6:.0f}",
            ]
            for each in processes
        ],
    )
