"""The dashboard in a real browser: accessible in every view, and operated by keyboard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.nodes import twistd, wait_for
from tests.system.ports import free_ports

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent.parent / "build" / "browser"
TOKEN = "0123456789abcdef0123"


def need_browser() -> str:
    """Skip without chromium, or where its driver and axe-core cannot be installed; chromium's path."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    missing = [name for name, there in (("chromium", chromium), ("npm", shutil.which("npm"))) if not there]
    why = f"missing: {', '.join(missing)} (apt-get install chromium nodejs npm)" if missing else ""
    if not why and not (TOOLS / "node_modules" / "axe-core").exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "package.json", TOOLS)
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(command, cwd=TOOLS, capture_output=True, text=True, check=False, timeout=120)
            why = f"npm install failed: {done.stderr[-300:]}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            why = "npm install did not end: no registry here?"
    if why or chromium is None:
        raise SkipTest(why)
    return chromium


class DashboardTests(SynchronousTestCase):
    """One standalone node, one living back end, one dead one."""

    def start(self, folder: Path) -> str:
        """A node with its back end; the dashboard's URL."""
        http, status, living, dead = free_ports(4)
        (folder / "token").touch(mode=0o600)
        (folder / "token").write_text(TOKEN)
        (folder / "site").mkdir()
        (folder / "lbarray.toml").write_text(
            f"""
            [array]
            state_dir = "state"
            [services.http]
            address = "127.0.0.1"
            port = {http}
            [pools.web]
            check = {{ kind = "tcp", interval = "200ms" }}
            [pools.web.backends]
            w1 = {{ address = "127.0.0.1:{living}" }}
            w2 = {{ address = "127.0.0.1:{dead}" }}
            [console]
            status = "127.0.0.1:{status}"
            token_file = "token"
            """
        )
        commands = [
            [sys.executable, "-m", "http.server", str(living), "--bind", "127.0.0.1", "--directory", f"{folder}/site"],
            [*twistd(), "-n", "--pidfile=", "lbarray", "--config", str(folder / "lbarray.toml")],
        ]
        for command in commands:
            with (folder / "log").open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log)
            self.addCleanup(process.wait, 20)
            self.addCleanup(process.terminate)
        url = f"http://127.0.0.1:{status}/"

        def ready() -> bool:
            try:
                with urllib.request.urlopen(url + "status", timeout=2) as answer:
                    return bool(json.load(answer)["pools"]["web"]["w1"]["state"] == "up")
            except OSError:
                return False

        wait_for(ready, "the node", 20, 0.1)
        return url

    def test_looked_at(self) -> None:
        """axe-core finds nothing in light, dark, on a phone and in the dialogs; a back end is drained by keyboard."""
        chromium = need_browser()
        with tempfile.TemporaryDirectory(prefix="lbarray-test-") as name:
            url = self.start(Path(name))
            done = subprocess.run(
                ["node", str(HERE / "look.mjs"), url, TOKEN, "web/w1"],
                cwd=TOOLS,
                env={**os.environ, "CHROMIUM": chromium},
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            self.assertEqual(done.returncode, 0, done.stderr[-3000:])
            found: dict[str, Any] = json.loads(done.stdout)
            views = ("light", "dark", "phone", "operating", "token-dialog", "confirm-dialog")
            self.assertEqual({view: found["violations"][view] for view in views}, {view: [] for view in views})
            # Nothing that the content security policy stopped, no mistake in the script, nothing wider than the screen.
            self.assertEqual(found["errors"], [])
            self.assertEqual(set(found["wide"].values()), {False})
            # Buttons only with the token; the drain asks before, says what it did and shows it.
            self.assertEqual(found["buttonsBefore"], 0)
            self.assertIn("web/w1", found["asked"])
            self.assertIn("no new clients", found["said"])
            self.assertEqual(found["state"], "draining")
