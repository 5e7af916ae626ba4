"""The targets of the fuzzer, with what it begins with: they are there and hold."""

from __future__ import annotations

from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from lbarray.http.h2_compression import COMPILED
from lbarray.http.plain_heads import scanner
from tests.fuzz.targets import SEEDS, TARGETS


class TargetTests(SynchronousTestCase):
    """Each of them."""

    def test_seeds(self) -> None:
        """Takes its seeds, cut off anywhere too."""
        if scanner is None or not COMPILED:
            raise SkipTest("the parts in C are not built here")
        self.assertEqual(SEEDS.keys(), TARGETS.keys())
        for name, target in TARGETS.items():
            for seed in SEEDS[name]:
                for end in range(len(seed) + 1):
                    target(seed[:end])
