"""What is said of the benchmarks."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import NAMES

README = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "README.rst"


class NamesTests(SynchronousTestCase):
    """``make bench ONLY=NAME``."""

    def test_listed(self) -> None:
        """The README lists every benchmark that there is, and no other."""
        listed = re.findall(r"^``(\w+)``  ", README.read_text(), re.MULTILINE)
        self.assertEqual(sorted(listed), sorted(NAMES))

    def test_there(self) -> None:
        """Each name can be run."""
        for name in NAMES:
            self.assertTrue(callable(importlib.import_module(f"benchmarks.{name}").main), name)
