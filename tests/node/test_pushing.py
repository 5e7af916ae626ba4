"""One configuration for the whole array, over the array's own requests; each node with its own file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.config.load import load_file
from lbarray.console.actions import Refused
from lbarray.errors import BadConfig, SystemRefused
from lbarray.membership.requests import ArrayRequests
from lbarray.node.configuring import Configuring
from lbarray.node.pushing import NotPushed, Pushing
from lbarray.testing import MemoryChannel

TEXT = """
[array]
key_file = "array.key"
vips = ["192.0.2.100/24"]
nodes = { a = { address = "192.0.2.1" }, b = { address = "192.0.2.2" }, c = { address = "192.0.2.3" } }
[services.http]
vip = "192.0.2.100"
port = 80
[pools.web.backends]
w1 = { address = "192.0.2.21:80" }
"""
OTHER = TEXT.replace('"192.0.2.21:80"', '"192.0.2.22:80"')


class Node:
    """What of a node a push meets: its file, its requests, and parts that follow."""

    def __init__(self, name: str, channel: MemoryChannel, folder: Path, clock: Clock) -> None:
        folder.mkdir()
        (folder / "array.key").touch(mode=0o600)
        (folder / "array.key").write_text("0123456789abcdef")
        self.path = folder / "array.toml"
        self.path.write_text(TEXT)
        file = load_file(self.path)
        self.node_name, self.config, self.reactor, self.running = name, file.config, clock, True
        self.backends = self.worker = self.acceptance = self.scheduler = self.prober = self.weighing = None
        self.feedback = self.routes = self.failover = self.journal = None
        self.present = ["a", "b", "c"]
        self.membership = SimpleNamespace(
            requests=ArrayRequests(clock=clock, channel=channel),
            members=lambda: [SimpleNamespace(name=each) for each in self.present],
        )
        node: Any = self
        self.configuring = Configuring(node, file)
        self.pushing = Pushing(node)

    @property
    def version(self) -> str:
        return self.configuring.version


class PushTests(SynchronousTestCase):
    """All nodes, or none."""

    def setUp(self) -> None:
        self.clock = Clock()
        folder = Path(self.mktemp())
        folder.mkdir()
        self.nodes = [
            Node(channel.name, channel, folder / channel.name, self.clock) for channel in MemoryChannel.array(*"abc")
        ]
        self.before = self.nodes[0].version

    def push(self, text: str = OTHER, **more: bool) -> Any:
        return self.nodes[0].pushing.push(text, **{"stage": False, "absent_ok": False, **more})

    def unchanged(self) -> None:
        self.assertEqual({node.version for node in self.nodes}, {self.before})
        self.assertEqual({node.path.read_text() for node in self.nodes}, {TEXT})

    def test_everywhere(self) -> None:
        """Every node runs it, and has it in its file; what differs is said."""
        said = self.successResultOf(self.push())
        self.assertEqual({node.version for node in self.nodes}, {said["version"]})
        self.assertEqual({node.path.read_text() for node in self.nodes}, {OTHER})
        self.assertEqual(said["nodes"], ["a", "b", "c"])
        self.assertIn("pools.web.backends.w1.address", said["said"])

    def test_large(self) -> None:
        """One that needs many datagrams arrives whole."""
        import random

        noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=20000))
        said = self.successResultOf(self.push(OTHER + f"# {noise}\n"))
        self.assertEqual({node.version for node in self.nodes}, {said["version"]})

    def test_wrong(self) -> None:
        """A mistake in it is found before anybody is asked; nothing changes."""
        self.failureResultOf(self.push(OTHER.replace("port = 80", "port = 0")), BadConfig)
        self.unchanged()

    def test_wrong_elsewhere(self) -> None:
        """One node cannot have it (a file that only it lacks): nothing changes anywhere, and it is named."""
        for node in self.nodes[:2]:
            (node.path.parent / "token").touch(mode=0o600)
            (node.path.parent / "token").write_text("0123456789abcdef")
        failure = self.failureResultOf(self.push(OTHER + '[console]\ntoken_file = "token"\n', stage=True), NotPushed)
        self.assertIn("node c: ", str(failure.value))
        self.assertIn("console.token_file", str(failure.value))
        self.unchanged()

    def test_taken_back(self) -> None:
        """One node fails when it is to take it up: those that had taken it up run the old one again."""

        def refuse(new: object) -> None:
            raise SystemRefused("listen on TCP 192.0.2.100:80", detail="in use")

        vars(self.nodes[1].configuring)["take_up"] = refuse
        failure = self.failureResultOf(self.push(), NotPushed)
        self.assertIn("node b: cannot listen", str(failure.value))
        self.unchanged()

    def test_missing(self) -> None:
        """A missing node is named, and nothing changes unless it may be absent."""
        self.nodes[0].present = ["a", "b"]
        failure = self.failureResultOf(self.push_refused(), Refused)
        self.assertIn("missing from the array: c", str(failure.value))
        self.unchanged()
        said = self.successResultOf(self.push(absent_ok=True))
        self.assertEqual([node.version == said["version"] for node in self.nodes], [True, True, False])

    def push_refused(self) -> Any:
        return self.push()

    def test_silent(self) -> None:
        """A node that does not answer in time: nothing changes anywhere else."""
        for topic in list(self.nodes[2].membership.requests._channel._topics):
            self.nodes[2].membership.requests._channel._topics[topic] = []
        pushed = self.push()
        self.clock.pump([0.25] * 20)
        self.assertIn("node c", str(self.failureResultOf(pushed, NotPushed).value))
        self.unchanged()

    def test_roll_back(self) -> None:
        """The one before the last push, everywhere; and back again."""
        pushed = self.successResultOf(self.push())["version"]
        self.successResultOf(self.nodes[1].pushing.roll_back(absent_ok=False))
        self.unchanged()
        self.successResultOf(self.nodes[2].pushing.roll_back(absent_ok=False))
        self.assertEqual({node.version for node in self.nodes}, {pushed})

    def test_needs_restart(self) -> None:
        """What a running node cannot take up is refused; staged it is in all files, and nobody runs it yet."""
        text = OTHER.replace("192.0.2.3", "192.0.2.4")
        failure = self.failureResultOf(self.push(text), Refused)
        self.assertIn("array.nodes.c.address", str(failure.value))
        self.assertIn("every node number the workers by it", str(failure.value))
        self.unchanged()
        self.successResultOf(self.push(text, stage=True))
        self.assertEqual({node.version for node in self.nodes}, {self.before})
        self.assertEqual({node.path.read_text() for node in self.nodes}, {text})

    def test_permissions_stay(self) -> None:
        """The file keeps its permissions."""
        self.nodes[1].path.chmod(0o640)
        self.successResultOf(self.push())
        self.assertEqual(self.nodes[1].path.stat().st_mode & 0o777, 0o640)
