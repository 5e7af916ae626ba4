"""``lbarray top``: the array, live, in a terminal."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lbarray.commands.registry import Commands, connect, show
from lbarray.errors import ArrayError

__all__ = ["add", "screen"]

TONES = {"up": "green", "unchecked": "green", "draining": "yellow", "down": "bold red"}


def add(commands: Commands) -> None:
    """``top``."""
    command = commands.add_remote("top", top)
    command.add_argument("--every", type=float, default=1.0, metavar="SECONDS", help="how often to look (1)")
    command.add_argument("--once", action="store_true", help="look for one interval, print, and end")


def top(arguments: argparse.Namespace) -> int:
    """The array, live: nodes, services and back ends with their rates; Ctrl-C ends it."""
    node = connect(arguments)
    every_s = max(0.2, arguments.every)
    before = node.status()
    if arguments.json:
        return show(arguments, before)
    if arguments.once:
        time.sleep(every_s)
        Console(highlight=False).print(screen(before, node.status()))
        return 0
    with Live(screen(before, before), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(every_s)
            try:
                now = node.status()
            except ArrayError as error:
                # Whoever watches a restart wants to see the node come back.
                live.update(Text(f"{error}\nasking again every {every_s:g} s; Ctrl-C ends", "red"), refresh=True)
                continue
            live.update(screen(before, now), refresh=True)
            before = now


def _part(value: object, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _rate(before: Mapping[str, Any], now: Mapping[str, Any], *keys: str) -> float:
    """A counter's growth per second between two statuses; 0 when the node was restarted in between."""
    passed = now["uptime_s"] - before["uptime_s"]
    *path, last = keys
    grown = float(_part(now, *path).get(last) or 0) - float(_part(before, *path).get(last) or 0)
    return max(0.0, grown / passed) if passed > 0 else 0.0


def _age(seconds: object) -> str:
    value = float(seconds) if isinstance(seconds, int | float) else 0.0
    for limit, divisor, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / divisor:.0f} {unit}"
    return f"{value / 86400:.0f} days"


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for head in heads:
        name = head.lstrip("#")
        # On a narrow terminal what a check said gives way, not what the figures are.
        least = None if name == "last check" else len(name)
        table.add_column(name, justify="right" if head.startswith("#") else "left", no_wrap=True, min_width=least)
    return table


def screen(before: Mapping[str, Any], now: Mapping[str, Any]) -> RenderableType:
    """Everything, from two statuses some time apart."""
    return Group(*_parts(before, now))


def _parts(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[RenderableType]:
    version = _part(now, "configuration").get("version") or "none"
    yield Text.assemble(
        (str(now["array"]), "bold"), f"   seen from node {now['node']}, up {_age(now['uptime_s'])}, "
        f"configuration {version}, lbarray {now['version']}",
    )  # fmt: skip
    yield Text()
    if _part(now, "membership"):
        yield from (_nodes(now), Text())
    if _part(now, "services"):
        yield from (_services(before, now), Text())
    if _part(now, "pools"):
        yield from (_backends(before, now), Text())
    troubles = _troubles(before, now)
    if troubles.row_count:
        yield troubles


def _nodes(now: Mapping[str, Any]) -> Table:
    table = _table(
        "Nodes", "node", "address", "role", "state", "#requests/s", "#connections", "#CPU %", "#weight", "#in for"
    )
    for name, member in _part(now, "membership", "members").items():
        state = "draining" if member.get("draining") else "accepts" if member.get("accepting") else "accepts nobody"
        tone = {"accepts": "green", "draining": "yellow"}.get(state, "bold red")
        table.add_row(
            name,
            str(member.get("address")),
            "scheduler" if "SCHEDULER" in (member.get("roles") or ()) else "",
            Text(state, tone),
            f"{member.get('requests_per_s', 0):.1f}",
            str(member.get("connections", 0)),
            f"{100 * member.get('cpu', 0):.0f}",
            str(member.get("weight", "")),
            _age(member.get("since_s")),
        )
    for name in _part(now, "membership").get("missing") or ():
        table.add_row(name, "", "", Text("missing", "bold red"))
    return table


def _services(before: Mapping[str, Any], now: Mapping[str, Any]) -> Table:
    table = _table("Services of this node", "service", "at", "TLS", "#requests/s", "#connections", "#p50 ms", "#p99 ms")
    for name, service in _part(now, "services").items():
        latency = _part(service, "latency_s")
        table.add_row(
            name,
            str(service.get("at")),
            "yes" if service.get("tls") else "no",
            f"{_rate(before, now, 'services', name, 'requests'):.1f}",
            str(service.get("connections", 0)),
            *(f"{1000 * latency[key]:.1f}" if key in latency else "" for key in ("p50", "p99")),
        )
    return table


def _backends(before: Mapping[str, Any], now: Mapping[str, Any]) -> Table:
    table = _table(
        "Back ends as this node sees them",
        "back end", "address", "state", "#for", "#requests/s", "#in hand", "#failed/s", "#idle", "last check",
    )  # fmt: skip
    for pool, members in _part(now, "pools").items():
        for name, member in _part(members).items():
            state = str(member.get("state"))
            table.add_row(
                f"{pool}/{name}",
                str(member.get("address")),
                Text(state, TONES.get(state, "yellow")),
                _age(member.get("since_s")),
                f"{_rate(before, now, 'pools', pool, name, 'requests'):.1f}",
                str(member.get("outstanding", 0)),
                f"{_rate(before, now, 'pools', pool, name, 'failures'):.1f}",
                str(member.get("idle", "")),
                str(member.get("check", ""))[:60],
            )
    return table


def _troubles(before: Mapping[str, Any], now: Mapping[str, Any]) -> Table:
    table = _table("Refused and failed", "what", "why", "#per second", "#since the start")
    for kind in ("answers", "requests_refused", "bad_requests", "backend_failures", "retries", "timeouts"):
        for why, count in _part(now, "counters", kind).items():
            table.add_row(kind.replace("_", " "), why, f"{_rate(before, now, 'counters', kind, why):.1f}", str(count))
    return table
