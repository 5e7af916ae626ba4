"""SipHash-1-3 beside another implementation: Python's own hash of octets."""

from __future__ import annotations

import json
import subprocess
import sys

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.scheduler.siphash import siphash13


class SipHashTests(SynchronousTestCase):
    """The hash that clients cannot aim."""

    def test_first_published(self) -> None:
        """The first of the published vectors: key 00 to 0f, nothing hashed."""
        self.assertEqual(siphash13(bytes(range(16)), b"").to_bytes(8, "little").hex(), "dcc40f055801acab")

    def test_python_itself(self) -> None:
        """Every length up to 40 octets, with Python's key of zeros."""
        if sys.hash_info.algorithm != "siphash13":
            raise SkipTest("this Python hashes otherwise")
        script = "import json; print(json.dumps([hash(bytes(range(n))) % 2**64 for n in range(1, 41)]))"
        done = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": "0"}, capture_output=True, check=True
        )
        self.assertEqual([siphash13(bytes(16), bytes(range(n))) for n in range(1, 41)], json.loads(done.stdout))
