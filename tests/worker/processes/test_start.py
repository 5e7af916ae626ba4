"""What a worker process loads."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

#: Libraries and rooms that a worker process has no use for, unless a filter of its configuration wants them.
NOT_NEEDED = ("pyroute2", "bs4", "prometheus_client", "twisted.conch", "rich", "lbarray.console", "lbarray.failover",
              "lbarray.scheduler.service", "lbarray.membership")  # fmt: skip


class StartTests(SynchronousTestCase):
    """A process starts for each processor, and again after each crash."""

    def test_only_what_serves(self) -> None:
        """Nothing of the node's other parts is loaded: that would double its time to start and its memory."""
        loaded = subprocess.run(
            [sys.executable, "-c", "import sys, lbarray.node.child_parts; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        self.assertIn("lbarray.worker.service", loaded)
        self.assertEqual([name for name in NOT_NEEDED if name in loaded], [])
