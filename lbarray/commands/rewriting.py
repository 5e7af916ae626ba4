"""Try the rules of rewriting before they are turned on: ``lbarray rewrite`` and ``lbarray filters``."""

from __future__ import annotations

import argparse
import mimetypes
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from rich.console import Console
from rich.table import Table
from rich.text import Text
from twisted.internet.task import Clock

from lbarray.commands.registry import Commands
from lbarray.config.cdn import Cdn
from lbarray.config.load import load
from lbarray.errors import BadConfig, Problem, SystemRefused
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.node.rewriting import cdn_filter
from lbarray.rewrite.codings import READABLE, decoder
from lbarray.rewrite.contents import Pipeline
from lbarray.rewrite.plugins import factories
from lbarray.rewrite.service import RewriteService
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress

__all__ = ["add"]

#: Octets of a page that is fetched, at most; and how long that may take.
LARGEST_PAGE = 64 << 20
FETCH_S = 20.0


def add(commands: Commands) -> None:
    """``rewrite``, ``filters``."""
    command = commands.add("rewrite", rewrite)
    command.add_argument("page", metavar="PAGE", help="a file, - for standard input, or an http(s) URL that is fetched")
    command.add_argument("--config", type=Path, metavar="FILE", help="take the rules from its [cdn]")
    command.add_argument("--cdn", action="append", default=[], metavar="HOST", help="or from here; may be repeated")
    command.add_argument("--path", action="append", default=[], metavar="PREFIX", help="what the CDN serves")
    command.add_argument("--url", metavar="URL", help="where the page is from, for its relative URLs")
    command.add_argument("--counts", action="store_true", help="only the counts, no differences")
    command.add_argument("--output", type=Path, metavar="FILE", help="write the page as it would leave")
    commands.add("filters", filters)


@attrs.frozen
class _Page:
    """A page and what came with it."""

    url: str
    response: ResponseHead
    content: bytes


def rewrite(arguments: argparse.Namespace) -> int:
    """Show what rewriting would change in a page.

    Each change is shown with its line: what is there, and what would be sent instead. Then come the counts, and why
    anything was left as it is.
    """
    cdn = _rules(arguments)
    page = _fetched(arguments.page) if _is_url(arguments.page) else _read(arguments)
    counters = Counters()
    place = urlsplit(page.url)
    clock = Clock()
    service = RewriteService(reactor=clock, counters=counters, cdn=cdn_filter(cdn, counters))
    target = (place.path or "/") + (f"?{place.query}" if place.query else "")
    request = RequestHead(b"GET", target.encode(), [], host=(place.hostname or "").encode())
    fields = list(page.response.fields)
    body = service.open(request, page.response, ClientAddress("127.0.0.1", 0))
    console = Console(highlight=False, soft_wrap=True)
    before = after = page.content
    if body is not None:
        before, after, marks = _through(body, page, clock)
        if not arguments.counts:
            _show_fields(console, fields, page.response.fields)
            _show_changes(console, before, after, marks)
    _show_counts(console, counters, before, after)
    if arguments.output is not None:
        arguments.output.write_bytes(after)
    return 0


def _rules(arguments: argparse.Namespace) -> Cdn:
    if arguments.config is not None:
        found = load(arguments.config).cdn
        if found is None:
            raise BadConfig([Problem("cdn", "nothing", "a table [cdn]")], str(arguments.config))
        # Who one is does not matter here, and nobody has told what is behind the paths.
        return attrs.evolve(found, percent=100.0, types=(), min_size=0, max_size=0)
    if not arguments.cdn or not arguments.path:
        raise BadConfig(
            [Problem("lbarray rewrite", "no rules", "--config FILE, or --cdn HOST and --path PREFIX")],
            "the command line",
        )
    return Cdn(hosts=tuple(arguments.cdn), paths=tuple(arguments.path))


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _read(arguments: argparse.Namespace) -> _Page:
    name = arguments.page
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise SystemRefused(f"read {name}", errno=error.errno or 0) from None
    kind = mimetypes.guess_type(name)[0] or "text/html"
    response = ResponseHead(200, [(b"Content-Type", kind.encode())])
    return _Page(arguments.url or "http://localhost/", response, content)


def _fetched(url: str) -> _Page:
    accepted = b", ".join(READABLE[:4]).decode()
    request = urllib.request.Request(url, headers={"Accept": "text/html,*/*;q=0.8", "Accept-Encoding": accepted})
    try:
        with urllib.request.urlopen(request, timeout=FETCH_S) as answer:
            content = answer.read(LARGEST_PAGE)
            fields = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
            return _Page(answer.url, ResponseHead(answer.status, fields), content)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None)
        raise SystemRefused(f"fetch {url}", detail=str(reason or error)) from None


def _through(body: Any, page: _Page, clock: Clock) -> tuple[bytes, bytes, list[tuple[int, int, int]]]:
    """The page before and after, without its coding, and where the changes are."""
    assert isinstance(body, Pipeline)
    marks: list[tuple[int, int, int]] = []
    body.marks = marks
    coding = (page.response.get(b"content-encoding") or b"").strip().lower()
    out = body.feed(page.content)
    while body.waiting is not None:
        clock.advance(0)
        out += body.feed(b"")
    out += body.finish()
    reader = decoder(coding) if coding not in (b"", b"identity") else None
    if reader is None:
        return page.content, out, marks
    writer = decoder(coding)
    assert writer is not None
    return b"".join(reader.decode(page.content)), b"".join(writer.decode(out)), marks


def _show_fields(console: Console, before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]) -> None:
    for name, value in before:
        if (name, value) not in after:
            console.print(Text(f"- {name.decode('latin-1')}: {value.decode('latin-1')}", style="red"))
    for name, value in after:
        if (name, value) not in before:
            console.print(Text(f"+ {name.decode('latin-1')}: {value.decode('latin-1')}", style="green"))


def _show_changes(console: Console, before: bytes, after: bytes, marks: list[tuple[int, int, int]]) -> None:
    line, seen, grown = 1, 0, 0
    for start, end, out_end in marks:
        line += before.count(b"\n", seen, start)
        seen = start
        out_start = start + grown
        grown = out_end - end
        console.print(Text(f"@@ line {line} @@", style="cyan"))
        old, new = before[start:end], after[out_start:out_end]
        for sign, octets, style, mark in (
            ("-", old, "red", "bold reverse red"),
            ("+", new, "green", "bold reverse green"),
        ):
            text = Text(f"{sign} {octets.decode('utf-8', 'replace')}", style=style)
            for first, last in _different(octets, new if octets is old else old):
                text.stylize(mark, 2 + first, 2 + last)
            console.print(text)


def _different(octets: bytes, other: bytes) -> list[tuple[int, int]]:
    """Where the first differs from the other, between what both begin and end with."""
    first = 0
    shorter = min(len(octets), len(other))
    while first < shorter and octets[first] == other[first]:
        first += 1
    last = 0
    while last < shorter - first and octets[-1 - last] == other[-1 - last]:
        last += 1
    return [(first, len(octets) - last)] if len(octets) - last > first else []


def _show_counts(console: Console, counters: Counters, before: bytes, after: bytes) -> None:
    table = Table(show_header=False, box=None)
    table.add_row("URLs that lead to the CDN", str(counters.get("rewrite_urls")))
    for label, count in counters.by_label("rewrite_tags_left").items():
        table.add_row(f"tags left as they are: {label}", str(count))
    for name in ("rewrite_left", "rewrite_bail_out"):
        for label in counters.by_label(name):
            table.add_row("page left as it is, or the rest of it", label)
    table.add_row("octets before, after", f"{len(before)}, {len(after)}")
    console.print(table)


def filters(arguments: argparse.Namespace) -> int:
    """List the filters that plug-ins offer to [[filters]]."""
    known = factories()
    for name, factory in sorted(known.items()):
        said = (type(factory).__doc__ or "").strip().partition("\n")[0]
        print(f"{name}  {said}")
    if not known:
        print("none is installed; docs/rewriting.rst says how to write one")
    return 0
