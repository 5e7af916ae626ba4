"""Parts in C that are not there, and such that do not fit: a copy of the program, in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import lbarray

PACKAGE = Path(lbarray.__path__[0])
#: Everything that has a part in C, and what a node would say of them.
LOOK = """
import lbarray.http.lines, lbarray.http.plain_heads, lbarray.http.h2_compression
import lbarray.rewrite.tokens, lbarray.scheduler.maglev, lbarray.telemetry.access_log
from lbarray.extensions import stale
print(*stale(), sep="\\n", end="")
"""
#: A module as it might have been once: its ``Scanner`` is not asked for names.
OLD_HEADS = """
class Scanner: pass
def fields(lines): return []
"""


class StaleTests(SynchronousTestCase):
    """What is said of them."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        shutil.copytree(PACKAGE, self.folder / "lbarray", ignore=ignored)
        self.http = self.folder / "lbarray" / "http"

    def said(self) -> list[str]:
        command = [sys.executable, "-c", LOOK]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    def test_absent(self) -> None:
        """Where no compiler was nothing is said, and everything works."""
        self.assertEqual(self.said(), [])

    def test_another_signature(self) -> None:
        """One that takes something else than it is given."""
        (self.http / "_heads.py").write_text(OLD_HEADS)
        (said,) = self.said()
        self.assertIn("lbarray/http/_heads.py was compiled from another source", said)
        self.assertIn("make setup", said)

    def test_another_module(self) -> None:
        """A compiled file that cannot be imported is named once, though two modules want it."""
        found = next((PACKAGE / "rewrite").glob("_scan.*.so"), None)
        if found is None:
            raise SkipTest("the parts in C are not built here")
        shutil.copy(found, self.http / "_heads.abi3.so")
        shutil.copy(found, self.http / "_hpack.abi3.so")
        self.assertEqual([Path(said.split()[0]).name for said in self.said()], ["_heads.abi3.so", "_hpack.abi3.so"])
