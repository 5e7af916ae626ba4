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
from tests.browser.devtools import Browser, Page, axe_core
from tests.system.ports import free_ports

TOKEN = "0123456789abcdef0123"
#: A folder for screenshots, to look at by eye.
PICTURES = os.environ.get("LBARRAY_PICTURES", "")


def need_browser() -> tuple[str, str]:
    """Chromium's path and the script of axe-core; skip where they are not, unless LBARRAY_REQUIRE_SYSTEM is set."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    axe = axe_core()
    if chromium is not None and axe is not None:
        return chromium, axe
    why = "chromium is missing (tools/system-packages)" if chromium is None else "axe-core is missing (make setup)"
    if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
        raise AssertionError(why)
    raise SkipTest(why)


VIEWS: dict[str, dict[str, Any]] = {
    "light": {"width": 1360, "height": 900, "scheme": "light"},
    "dark": {"width": 1360, "height": 900, "scheme": "dark"},
    "phone": {"width": 390, "height": 844, "scheme": "light", "phone": True},
}


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
        self.site = f"http://127.0.0.1:{http}/"

        def ready() -> bool:
            try:
                with urllib.request.urlopen(url + "status", timeout=2) as answer:
                    return bool(json.load(answer)["pools"]["web"]["w1"]["state"] == "up")
            except OSError:
                return False

        wait_for(ready, "the node", 20, 0.1)
        return url

    def setUp(self) -> None:
        chromium, self.axe = need_browser()
        folder = tempfile.TemporaryDirectory(prefix="lbarray-test-")
        self.addCleanup(folder.cleanup)
        self.url = self.start(Path(folder.name))
        urllib.request.urlopen(self.site, timeout=5).close()  # so that there is a route to see
        self.browser = Browser(chromium)
        self.addCleanup(self.browser.close)

    def open(self, **view: Any) -> Page:
        """The page as its user sees it, with two statuses, so that there are rates."""
        page = self.browser.page(**view)
        page.open(self.url)
        page.has("#link.live")
        page.has("[data-backend]")
        page.has("#routes-section:not([hidden])")
        self.assertIn("*/", page.text("#routes"))
        page.run("new Promise((resolve) => setTimeout(resolve, 2500))")
        return page

    def judge(self, page: Page, name: str) -> None:
        """axe-core finds nothing, nothing is wider than the screen, no script and no policy complains."""
        page.run(self.axe)
        found = page.run("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        said = [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:120]}" for one in found]
        self.assertEqual(said, [], name)
        self.assertFalse(page.run("document.documentElement.scrollWidth > innerWidth"), f"{name} is too wide")
        page.look()
        self.assertEqual(page.errors, [], name)
        if PICTURES:
            page.picture(Path(PICTURES) / f"{name}.png")

    def test_views(self) -> None:
        """Accessible in light, in dark and on a phone."""
        for name, view in VIEWS.items():
            page = self.open(**view)
            self.judge(page, name)
            page.close()

    def test_by_keyboard(self) -> None:
        """Without the token there is nothing to press; with it, a back end is drained, after a question."""
        page = self.open(**VIEWS["light"])
        self.assertEqual(page.run("document.querySelectorAll('[data-act]').length"), 0)
        page.focus("#sign")
        page.press("Enter")
        page.has("#token-dialog[open]")
        self.judge(page, "token-dialog")
        page.focus("#token")
        page.type(TOKEN)
        for key in ("Tab", "Tab", "Enter"):
            page.press(key)
        drain = '[data-act="drain-web/w1"]'
        page.has(drain)
        self.judge(page, "operating")
        page.focus(drain)
        page.press("Enter")
        page.has("#confirm-dialog[open]")
        self.judge(page, "confirm-dialog")
        self.assertIn("web/w1", page.text("#confirm-title"))
        page.focus("#confirm-ok")
        page.press("Enter")
        page.has("#said:not([hidden])")
        self.assertIn("no new clients", page.text("#said"))
        page.has('[data-backend="web/w1"][data-state="draining"]')
