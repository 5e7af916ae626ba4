"""How a command is added: its name, the function that does it, and what it has in common with the others."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lbarray.commands.client import NodeClient

__all__ = ["Commands", "connect", "show"]


class _Version(argparse.Action):
    """Prints the version. It is looked up only then: a command line should be quick."""

    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from lbarray.node.identity import program_version

        print(f"lbarray {program_version()}")
        parser.exit()


class Commands:
    """The command line's parser while it is being put together."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="lbarray",
            description="Work with a load balancing array. The daemon itself: twistd lbarray --help",
        )
        self.parser.add_argument("--version", nargs=0, action=_Version, help="which lbarray this is")
        self._commands = self.parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        """A command that works alone. The first line of ``run``'s docstring is its help."""
        said = (run.__doc__ or "").strip()
        command = self._commands.add_parser(name, help=said.partition("\n")[0], description=said)
        command.set_defaults(run=run)
        return command

    def add_remote(self, name: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        """A command that asks a running node: see :func:`connect` and :func:`show`."""
        command = self.add(name, run)
        node = command.add_argument_group("which node to ask (by default the one that runs on this machine)")
        node.add_argument("--socket", type=Path, metavar="PATH", help="the node's Unix socket: STATE_DIR/NODE.sock")
        node.add_argument("--config", type=Path, metavar="FILE", help="its configuration, to find the socket by")
        node.add_argument("--node", metavar="NAME", help="its name, where several run on this machine")
        node.add_argument("--url", metavar="URL", help="its HTTP API, such as http://127.0.0.1:9080")
        node.add_argument("--ca", type=Path, metavar="FILE", help="PEM of who signed its certificate, for https")
        node.add_argument("--certificate", type=Path, metavar="FILE", help="our own, with its key in the same file")
        node.add_argument("--token-file", type=Path, metavar="FILE", help="the token for changes over --url")
        command.add_argument("--json", action="store_true", help="what the node answered, for programs")
        return command

    def add_showing(self, name: str, run: Callable[[argparse.Namespace], int], *, instead: str) -> None:
        """A remote command that shows what there is, or does something about it: ``arguments.what`` says which."""
        command = self.add_remote(name, run)
        command.add_argument(
            "what", nargs="?", choices=["show", instead], default="show", help=f"show (the default), {instead}"
        )


def connect(arguments: argparse.Namespace) -> NodeClient:
    """The node that the arguments of a remote command mean.

    :raises SystemRefused: none is found.
    """
    return NodeClient.find(
        socket_path=arguments.socket,
        config=arguments.config,
        node=arguments.node,
        url=arguments.url,
        token_file=arguments.token_file,
        ca=arguments.ca,
        certificate=arguments.certificate,
    )


def show(
    arguments: argparse.Namespace,
    result: Mapping[str, object],
    as_text: Callable[[Mapping[str, object]], str] = lambda result: str(result.get("said", "done")),
) -> int:
    """Print what a node answered: as JSON when asked to, else in words; the exit code of success."""
    text = json.dumps(result, indent=1) if arguments.json else as_text(result)
    sys.stdout.write(text.rstrip("\n") + "\n")
    return 0
