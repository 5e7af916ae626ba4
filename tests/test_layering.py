"""The rooms keep their rows: an import never climbs, and rooms of one row never meet."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lbarray"

#: docs/architecture.rst, from the top. Rooms of one tuple never import each other, but for the ones in FRIENDS.
ROWS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("commands", "tap", "worker_process"),
    ("daemon",),
    ("testbed",),
    ("testing",),
    ("node",),
    ("console",),
    ("failover", "scheduler", "worker", "rewrite", "backends", "membership"),
    ("kernel",),
    ("interfaces",),
    ("plugin",),
    ("http",),
    ("telemetry",),
    ("config",),
    ("bpf",),
    ("values", "errors", "sequences", "extensions"),
)
FRIENDS = {("values", "errors")}
RANK = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

#: Rooms whose cores must stay free of the reactor.
NO_TWISTED = ("http", "config", "values", "errors", "sequences", "extensions")


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "lbarray":
                yield from (f"lbarray.{alias.name}" for alias in node.names)
            else:
                yield node.module


class LayeringTests(SynchronousTestCase):
    """What imports what."""

    def test_every_room_has_a_row(self) -> None:
        """A new room is given its place before it is used."""
        self.assertEqual({room for _, room in modules()} - set(RANK), set())

    def test_no_import_climbs(self) -> None:
        """A room imports only from the rows below its own."""
        wrong = []
        for path, room in modules():
            for name in imported(path):
                head, _, rest = name.partition(".")
                target = rest.partition(".")[0]
                if head != "lbarray" or target in ("", room) or (room, target) in FRIENDS:
                    continue
                if RANK[target] <= RANK[room]:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.assertEqual(wrong, [])

    def test_the_reactor_is_passed_in(self) -> None:
        """Only the outermost rows may import the global reactor."""
        wrong = [
            str(path.relative_to(ROOT))
            for path, room in modules()
            if room not in ("tap", "testbed", "commands", "worker_process")
            and any(name == "twisted.internet.reactor" for name in imported(path))
        ]
        for path, room in modules():
            tree = ast.parse(path.read_text())
            wrong += [
                str(path.relative_to(ROOT))
                for node in ast.walk(tree)
                if room not in ("tap", "testbed", "commands", "worker_process")
                and isinstance(node, ast.ImportFrom)
                and node.module == "twisted.internet"
                and any(alias.name == "reactor" for alias in node.names)
            ]
        self.assertEqual(wrong, [])

    def test_the_lowest_rows_know_no_twisted(self) -> None:
        """Messages, configuration and values are plain Python."""
        wrong = [
            f"{path.relative_to(ROOT)} imports {name}"
            for path, room in modules()
            if room in NO_TWISTED
            for name in imported(path)
            if name.partition(".")[0] == "twisted"
        ]
        self.assertEqual(wrong, [])

    def test_the_plugin_imports_nothing_of_ours(self) -> None:
        """Looking for plug-ins costs every twistd on the machine; ours names its code as text."""
        names = list(imported(ROOT / "twisted" / "plugins" / "lbarray_plugin.py"))
        self.assertEqual([name for name in names if name.startswith("lbarray")], [])

    def test_the_plugin_folders_are_no_packages(self) -> None:
        """An __init__.py in either folder would hide Twisted's own plug-ins."""
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
