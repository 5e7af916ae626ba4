"""A standalone node takes up another configuration while it runs: what is written, and where it goes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from lbarray import extensions
from lbarray.config.load import load_file
from lbarray.config.model import Config
from lbarray.errors import SystemRefused
from lbarray.node import NodeService
from lbarray.node.configuring import NeedsRestart
from lbarray.values import Role
from lbarray.worker.service import WorkerService
from tests.system.ports import free_ports

TEXT = """
[array]
state_dir = "{folder}/state"
[worker]
processes = 0
[services.http]
address = "127.0.0.1"
port = {port}
[pools.web.backends]
w1 = {{ address = "127.0.0.1:1" }}
[console]
status = "127.0.0.1:{status}"
"""


class NodeCase(TestCase):
    """One node in this process."""

    def setUp(self) -> None:
        # Not trial's: the path of the node's socket may have 107 octets.
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        port, status = free_ports(2)
        self.text = TEXT.format(folder=self.folder, port=port, status=status)
        self.path = self.folder / "lbarray.toml"
        self.path.write_text(self.text)
        file = load_file(self.path)
        self.node = NodeService(
            reactor=reactor, config=file.config, name="a", roles=Role.SCHEDULER | Role.WORKER, file=file
        )
        self.node.startService()
        self.addCleanup(self.node.stopService)


class StartTests(NodeCase):
    """What a node says when it starts."""

    def setUp(self) -> None:
        self.patch(extensions, "_stale", {})
        extensions.not_used("lbarray.http.fields", TypeError("an argument too many"))
        self.said: list[LogEvent] = []
        observer: Any = self.said.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        super().setUp()

    def test_stale_parts(self) -> None:
        """Parts in C that are there in vain are warned of, once."""
        found = [event for event in self.said if "an argument too many" in formatEvent(event)]
        self.assertEqual([event["log_level"] for event in found], [LogLevel.warn])
        self.assertIn("lbarray/http/fields.py was compiled", formatEvent(found[0]))


class ReloadTests(NodeCase):
    """It takes up another configuration."""

    def reload(self, more: str) -> list[str]:
        self.path.write_text(self.text + more)
        return [difference.key for difference in self.node.configuring.reload()]

    @property
    def factory(self) -> Any:
        worker = self.node.worker
        assert isinstance(worker, WorkerService)
        return worker.factories["http"]

    def test_tracing(self) -> None:
        """Spans begin to be recorded, go elsewhere, and end to be."""
        self.assertIsNone(self.factory.tracing)
        self.reload('[tracing]\nendpoint = "http://127.0.0.1:1/v1/traces"\n')
        first = self.factory.tracing
        self.assertEqual(first.settings.endpoint, "http://127.0.0.1:1/v1/traces")
        self.assertTrue(first.running)
        self.assertEqual(self.reload('[tracing]\nendpoint = "http://127.0.0.1:2/v1/traces"\n'), ["tracing.endpoint"])
        self.assertFalse(first.running)
        self.assertEqual(self.factory.tracing.settings.endpoint, "http://127.0.0.1:2/v1/traces")
        self.reload("")
        self.assertIsNone(self.factory.tracing)

    def test_access_log(self) -> None:
        """Lines go to another file; one that cannot be opened changes nothing."""
        before = self.factory.access_log
        self.reload(f'[access_log]\npath = "{self.folder}/other.log"\n')
        self.assertEqual(self.factory.access_log.path, self.folder / "other.log")
        self.assertTrue((self.folder / "other.log").exists())
        self.assertIsNot(self.factory.access_log, before)
        with self.assertRaises(SystemRefused):
            self.reload(f'[access_log]\npath = "{self.folder}/nowhere/other.log"\n')
        self.assertEqual(self.factory.access_log.path, self.folder / "other.log")
        self.assertEqual(self.node.config.access_log.path, self.folder / "other.log")
        self.flushLoggedErrors()

    def test_processes(self) -> None:
        """A node that serves in its own process cannot begin to serve by others."""
        before = self.node.config
        self.path.write_text(self.text.replace("processes = 0", "processes = 2"))
        with self.assertRaisesRegex(NeedsRestart, "worker.processes: 0 becomes 2 .whether a node serves in its own"):
            self.node.configuring.reload()
        self.assertIs(self.node.config, before)
        self.flushLoggedErrors()

    def test_told(self) -> None:
        """Whoever wants to know is told what the node runs by, once it does."""
        heard: list[Config] = []
        self.node.configuring.subscribe(heard.append)
        self.reload('[log]\nlevel = "debug"\n')
        self.assertEqual([config.log.level for config in heard], ["debug"])
        self.assertIs(self.node.config, heard[0])
