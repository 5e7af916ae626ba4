"""Which node this is, and what it has changed on its machine."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from lbarray.config.model import Config
from lbarray.config.problems import nearest
from lbarray.errors import BadConfig, Problem
from lbarray.kernel.addresses import undoers as address_undoers
from lbarray.kernel.firewall import remove_table
from lbarray.kernel.journal import Journal
from lbarray.kernel.links import remove_interface
from lbarray.scheduler import bpf_plane, packet_plane

__all__ = ["journal_of", "node_name", "program_version"]


@cache
def program_version() -> str:
    """The version of lbarray that runs."""
    try:
        return version("lbarray")
    except PackageNotFoundError:
        return "unknown"


def node_name(config: Config, name: str | None, source: str) -> str:
    """Which node of the configuration this machine is.

    :raises BadConfig: it must be said and was not, or there is none of that name.
    """
    if config.standalone:
        return name or config.array.name
    if name is None:
        names = ", ".join(config.array.nodes)
        raise BadConfig([Problem("--node", "nothing", f"which node of the array this machine is: {names}")], source)
    if name not in config.array.nodes:
        raise BadConfig([Problem("--node", f'"{name}"', nearest(name, config.array.nodes))], source)
    return name


def journal_of(config: Config, name: str) -> Journal:
    """What the node of this name changed on its machine, and how each kind of change is undone.

    :raises SystemRefused: the file is there and of no use.
    """
    undoers = {
        **address_undoers(),
        **bpf_plane.undoers(),
        **packet_plane.undoers(),
        "macvlan": remove_interface,
        "dummy": remove_interface,
        "firewall": remove_table,
    }
    return Journal(config.array.state_dir / f"journal-{name}.json", undoers)
