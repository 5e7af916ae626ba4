"""Commands that move the VIPs."""

from __future__ import annotations

import argparse

from lbarray.commands.registry import Commands, connect, show

__all__ = ["add"]


def add(commands: Commands) -> None:
    """``handover``."""
    command = commands.add_remote("handover", handover)
    command.add_argument("to", nargs="?", metavar="NODE", help="the node that shall have them (default: next in line)")
    command.add_argument("--vip", metavar="ADDRESS", help="only the virtual router of this address")


def handover(arguments: argparse.Namespace) -> int:
    """Move the VIPs to another node; no client notices. They stay there until that node dies or hands them over."""
    return show(arguments, connect(arguments).perform("handover", to=arguments.to, vip=arguments.vip))
