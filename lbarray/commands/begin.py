"""The first minute: a configuration from three answers, or from another program's file."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Iterable
from ipaddress import ip_interface
from pathlib import Path

from lbarray.commands.drafts.draft import Draft, DraftCheck, DraftPool, DraftService, name_of
from lbarray.commands.drafts.haproxy import from_haproxy
from lbarray.commands.drafts.keepalived import from_keepalived
from lbarray.commands.drafts.nginx import from_nginx
from lbarray.commands.registry import Commands
from lbarray.config.load import parse
from lbarray.errors import ArrayError, BadConfig, SystemRefused

__all__ = ["add"]

CONVERTERS: dict[str, Callable[[str], Draft]] = {
    "haproxy": from_haproxy,
    "nginx": from_nginx,
    "keepalived": from_keepalived,
}


class NotUnderstood(ArrayError):
    """An answer or an option that makes no sense."""


def add(commands: Commands) -> None:
    """``init``, ``convert``."""
    command = commands.add("init", init)
    command.add_argument("file", type=Path, nargs="?", default=Path("lbarray.toml"), metavar="FILE")
    command.add_argument("--backends", metavar="HOST:PORT,…", help="the web servers")
    command.add_argument("--nodes", metavar="[NAME=]ADDRESS,…", help="the machines of the array; none: this one alone")
    command.add_argument("--vip", metavar="ADDRESS/LENGTH", help="the address for clients, with its prefix length")
    command.add_argument("--listen", metavar="ADDRESS", default="0.0.0.0", help="without nodes: where to listen")
    command.add_argument("--port", type=int, default=None, help="port for clients (80; with a certificate also 443)")
    command.add_argument("--interface", default="eth0", help="where the nodes meet their clients (eth0)")
    command.add_argument("--certificate", metavar="FILE", help="the site's certificate and chain, PEM: TLS on port 443")
    command.add_argument("--key", metavar="FILE", help="its private key, PEM")
    command.add_argument("--force", action="store_true", help="replace FILE")

    command = commands.add("convert", convert)
    command.add_argument("source", type=Path, metavar="FILE", help="haproxy.cfg, nginx.conf or keepalived.conf")
    command.add_argument("--from", dest="program", choices=sorted(CONVERTERS), help="what FILE is, if not clear")
    command.add_argument("--nodes", metavar="[NAME=]ADDRESS,…", help="the machines of the array; none: as FILE says")
    command.add_argument("--vip", metavar="ADDRESS/LENGTH,…", help="with --nodes: the addresses for clients")
    command.add_argument("--interface", help="where the nodes meet their clients")
    command.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it; else it is printed")


def init(arguments: argparse.Namespace) -> int:
    """Write a commented configuration that passes lbarray check: from three questions, or from options."""
    path: Path = arguments.file
    if path.exists() and not arguments.force:
        raise SystemRefused(f"write {path}", detail="it is there already", advice="--force replaces it")
    asks = arguments.backends is None and sys.stdin.isatty()
    backends = arguments.backends
    nodes, vip = arguments.nodes, arguments.vip
    if asks:
        print("Three questions; an empty answer takes what is in brackets.")
        backends = _ask("1. Your web servers, host:port with commas between", "127.0.0.1:8001")
        nodes = _ask("2. The machines of the array, their own addresses with commas between; empty: this one alone", "")
        vip = _ask("3. The free address that clients will use, as 10.0.0.100/24", "") if nodes else ""
    if not backends:
        raise NotUnderstood("which web servers? --backends 10.0.0.21:80,10.0.0.22:80 (or run it in a terminal)")
    draft = Draft(source="init", interface=arguments.interface)
    if nodes:
        _set_nodes(draft, nodes, vip or "")
    elif not _may_write(Path("/var/lib/lbarray")):
        draft.state_dir = "state"
    place = str(ip_interface(draft.vips[0]).ip) if nodes else arguments.listen
    draft.services.append(DraftService("http", place, arguments.port or 80))
    if arguments.certificate:
        draft.services.append(DraftService("https", place, 443, arguments.certificate, arguments.key or ""))
    members = {f"w{number}": (_with_port(each), 1) for number, each in enumerate(_list(backends), 1)}
    draft.pools.append(DraftPool("web", members, check=DraftCheck(), cookie="LBARRAY"))
    text = draft.to_toml()
    parse(text, source="the answers", folder=path.resolve().parent)
    path.write_text(text)
    print(f"written: {path}")
    if nodes:
        _write_key(path.resolve().parent / "array.key")
        first = next(iter(draft.nodes))
        print(f"Copy {path} and array.key to every node, then on each, with its own name:")
        print(f"  lbarray check {path} && lbarray doctor {path} --node {first}")
        print(f"  twistd -n lbarray --config {path} --node {first}")
    else:
        print(f"  lbarray check {path} && lbarray doctor {path}")
        print(f"  twistd -n lbarray --config {path}")
    return 0


def convert(arguments: argparse.Namespace) -> int:
    """Turn a simple haproxy.cfg, nginx.conf or keepalived.conf into a configuration; says what it left out."""
    source: Path = arguments.source
    program = arguments.program or next((name for name in CONVERTERS if name in source.name.lower()), None)
    if program is None:
        raise NotUnderstood(f"what is {source}? --from {' | '.join(sorted(CONVERTERS))}")
    try:
        draft = CONVERTERS[program](source.read_text(errors="replace"))
    except OSError as error:
        raise SystemRefused(f"read {source}", errno=error.errno or 0) from None
    if arguments.nodes:
        draft.nodes.clear()
        draft.notes = [note for note in draft.notes if "--nodes" not in note]
        if arguments.vip:
            draft.vips.clear()
        if not arguments.vip and not draft.vips:
            draft.vips = list(dict.fromkeys(each.address for each in draft.services if each.address != "0.0.0.0"))
        _set_nodes(draft, arguments.nodes, arguments.vip or ",".join(draft.vips))
        for service in draft.services:
            if service.address not in [str(ip_interface(vip).ip) for vip in draft.vips]:
                service.address = str(ip_interface(draft.vips[0]).ip)
    if arguments.interface:
        draft.interface = arguments.interface
    text = draft.to_toml()
    if arguments.output is None:
        print(text, end="")
    else:
        arguments.output.write_text(text)
        print(f"written: {arguments.output}", file=sys.stderr)
    for note in draft.notes:
        print(f"still to be looked at: {note}", file=sys.stderr)
    try:
        parse(text, source="the result")
    except BadConfig as error:
        print(f"lbarray: it does not pass lbarray check yet:\n{error}", file=sys.stderr)
        return 3
    return 0


def _ask(question: str, default: str) -> str:
    return input(f"{question} [{default}]: ").strip() or default


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _with_port(address: str) -> str:
    return address if address.rpartition(":")[2].isdecimal() and ":" in address else f"{address}:80"


def _set_nodes(draft: Draft, nodes: str, vips: str) -> None:
    """:raises NotUnderstood: no address for clients."""
    if not _list(vips):
        raise NotUnderstood("which free address will clients use? --vip 10.0.0.100/24")
    for place, (name, address) in enumerate(_named(_list(nodes))):
        draft.nodes[name] = (address, max(150 - 20 * place, 10))
    for vip in _list(vips):
        try:
            draft.add_vip(vip)
        except ValueError:
            raise NotUnderstood(f"{vip!r} is no address; as 10.0.0.100/24") from None


def _named(parts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for place, part in enumerate(parts):
        name, equals, address = part.rpartition("=")
        yield (name_of(name), address) if equals else (chr(ord("a") + place) if place < 26 else f"n{place}", part)


def _write_key(path: Path) -> None:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32) + "\n")
        print(f"written: {path}, the array's secret")


def _may_write(path: Path) -> bool:
    there = path if path.exists() else path.parent
    return os.access(there, os.W_OK)
