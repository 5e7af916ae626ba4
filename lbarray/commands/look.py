"""Commands that look at a running node and change nothing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import Any

from lbarray.commands.registry import Commands, connect, show
from lbarray.console.tables import status_tables
from lbarray.errors import ArrayError

__all__ = ["add"]

#: Seconds between two looks.
LOOK_S = 0.25


def add(commands: Commands) -> None:
    """``status``, ``wait``."""
    commands.add_remote("status", status)
    command = commands.add_remote("wait", wait)
    command.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="then give up with code 1 (60)")


def status(arguments: argparse.Namespace) -> int:
    """The array, the services and the back ends as this node sees them."""
    found: Mapping[str, object] = connect(arguments).status()
    return show(arguments, found, status_tables)


def wait(arguments: argparse.Namespace) -> int:
    """Wait until a node is ready: it serves, every node of the array is there, and one of them owns the VIPs."""
    until = time.monotonic() + arguments.timeout
    while True:
        try:
            found = connect(arguments).status()  # each time: its socket may not be there yet
            lacking = unready(found)
            if not lacking:
                return show(arguments, found, lambda status: f"node {status['node']} is ready")
        except ArrayError as error:
            lacking = str(error)
        if time.monotonic() > until:
            print(f"lbarray: not ready after {arguments.timeout:g} s: {lacking}", file=sys.stderr)
            return 1
        time.sleep(LOOK_S)


def unready(status: Mapping[str, Any]) -> str:
    """What a node still lacks, in words; empty when it is ready."""
    membership = status.get("membership")
    if membership is None:
        return ""
    members = membership["members"]
    own = members.get(status["node"], {})
    if missing := membership["missing"]:
        return f"missing: {', '.join(missing)}"
    if "services" in status and not own.get("accepting"):
        return "it accepts no clients yet"
    if own.get("draining"):
        return "it drains: lbarray undrain ends that"
    if not any("SCHEDULER" in member["roles"] for member in members.values()):
        return "nobody owns the VIPs"
    return ""
