"""What the documentation shows does work."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.testbed.nodes import twistd, wait_for
from tests.system.ports import free_ports

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


class EmbeddedTests(SynchronousTestCase):
    """A node inside another application."""

    def test_serves(self) -> None:
        """The application's page, through the node, rewritten; and the node's view through the application."""
        http, page, status = free_ports(3)
        with tempfile.TemporaryDirectory(prefix="lbarray-test-") as folder:
            text = (DOCS / "examples" / "embedded_node.py").read_text()
            for old, new in (("8080", http), ("8081", page), ("9081", status), ("/tmp/lbarray-embedded", folder)):
                self.assertIn(str(old), text)
                text = text.replace(str(old), str(new))
            path = Path(folder) / "example.py"
            path.write_text(text)
            with (Path(folder) / "log").open("wb") as log:
                process = subprocess.Popen([*twistd(), "-n", "--pidfile=", "-y", str(path)], stdout=log, stderr=log)
            self.addCleanup(process.wait, 20)
            self.addCleanup(process.terminate)

            def ask(target: str) -> str:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{http}{target}", timeout=2) as answer:
                        return str(answer.read().decode())
                except OSError:
                    return ""

            self.assertIn("https://cdn.example.net/static/spade.png", wait_for(lambda: ask("/"), "the page", 20, 0.1))
            self.assertIn("outstanding", ask("/health"))
            process.terminate()
            process.wait(20)


class KeysTests(SynchronousTestCase):
    """The reference of the configuration is made from the model."""

    def test_every_key(self) -> None:
        """Every table and key of the model is in it."""
        sys.path.insert(0, str(DOCS))
        self.addCleanup(sys.path.remove, str(DOCS))
        from keys import lines, sections  # type: ignore[import-not-found]

        text = "\n".join(lines())
        paths = [path for path, _ in sections()]
        for path in ("array.nodes.NAME", "pools.NAME.check", "routes[]", "services.NAME.tls", "console.manhole"):
            self.assertIn(path, paths)
        for key in ("virtual_router_id", "stop_grace", "token_file", "weight"):
            self.assertIn(f"``{key}``", text)
