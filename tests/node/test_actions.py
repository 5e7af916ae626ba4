"""What can be asked of a node, and why not where it cannot."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.load import parse
from lbarray.console.actions import UnknownAction
from lbarray.node import NodeService
from lbarray.values import Role

TEXT = """
[array]
state_dir = "{folder}"
[worker]
processes = 0
[services.http]
address = "127.0.0.1"
port = 8080
[pools.web.backends]
w1 = {{ address = "127.0.0.1:8001" }}
"""


class StandaloneTests(SynchronousTestCase):
    """A node without others."""

    def test_absent(self) -> None:
        """What it has not, it says why: the operator is not left with a list of other words."""
        config = parse(TEXT.format(folder=Path(self.mktemp())))
        node = NodeService(reactor=Clock(), config=config, name="a", roles=Role.SCHEDULER | Role.WORKER)
        actions = node.view.actions
        for name, why in (
            ("handover", "stands alone"),
            ("flows", "lbarray flows --held"),
            ("where", "stands alone"),
            ("weigh", "stands alone"),
            ("replace-workers", "worker.processes = 0"),
        ):
            self.assertNotIn(name, actions)
            error: UnknownAction = self.assertRaises(UnknownAction, actions.get, name)
            self.assertIn(why, str(error))
        error = self.assertRaises(UnknownAction, actions.get, "dran")
        self.assertIn("there are: ", str(error))
