"""The documentation speaks of what there is: commands with their options, and keys of the configuration."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands import parser
from lbarray.config.load import parse
from lbarray.errors import BadConfig

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]


def blocks(path: Path) -> Iterator[str]:
    """Every literal block of a page: what is indented behind a line that ends in ``::`` or names a language."""
    lines = path.read_text().splitlines()
    place = 0
    while place < len(lines):
        line = lines[place]
        place += 1
        if not (line.rstrip().endswith("::") or re.match(r"\s*\.\. code-block::", line)):
            continue
        indent = len(line) - len(line.lstrip())
        block = []
        while place < len(lines) and (
            not lines[place].strip() or len(lines[place]) - len(lines[place].lstrip()) > indent
        ):
            block.append(lines[place])
            place += 1
        yield textwrap.dedent("\n".join(block)).strip("\n")


def commands(path: Path) -> Iterator[str]:
    """Every command line of ours in them, those with more behind ``&&`` too."""
    for block in blocks(path):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for part in re.split(r"&&|;|\|", line.partition(" #")[0]):
                if re.match(r"\s*lbarray [a-z]", part):
                    yield part.strip()


class PagesTests(SynchronousTestCase):
    """What stands in literal blocks."""

    def test_commands(self) -> None:
        """Each command that is shown exists, and takes the options that it is shown with."""
        seen = 0
        for path in PAGES:
            for command in commands(path):
                seen += 1
                said = io.StringIO()
                words = shlex.split(command.replace("…", "x"))[1:]
                try:
                    with contextlib.redirect_stderr(said):
                        parser().parse_args(words)
                except SystemExit:
                    self.fail(f"{path.name}: {command}\n{said.getvalue()}")
        self.assertGreater(seen, 20)

    def test_keys(self) -> None:
        """Each piece of configuration that is shown has no key that is unknown."""
        seen = 0
        for path in PAGES:
            for block in blocks(path):
                try:
                    found = tomllib.loads(block)
                except tomllib.TOMLDecodeError:
                    continue
                if not any(isinstance(value, dict | list) for value in found.values()):
                    continue
                seen += 1
                try:
                    parse(block)
                except BadConfig as error:
                    unknown = [str(problem) for problem in error.problems if "unknown" in problem.found]
                    self.assertEqual(unknown, [], f"{path.name}:\n{block}")
        self.assertGreater(seen, 15)
