"""A headless Chromium, driven by its DevTools protocol over a pipe: no driver, no node, no open port
(https://chromedevtools.github.io/devtools-protocol/; messages of JSON, each ended by a zero octet)."""

from __future__ import annotations

import base64
import fcntl
import importlib.util
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

__all__ = ["Browser", "Page", "axe_core"]

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
#: Keys by name: code, number, what they type.
_KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, "")}


def axe_core() -> str | None:
    """The script of axe-core; ``None`` where ``make setup`` has not installed what carries it."""
    found = importlib.util.find_spec("axe_playwright_python")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        script = Path(folder) / "axe.min.js"
        if script.exists():
            return script.read_text()
    return None


class Browser:
    """One Chromium with a profile of its own.

    :param timeout_s: how long anything may take before :class:`TimeoutError`.
    """

    def __init__(self, chromium: str, timeout_s: float = 30.0) -> None:
        self.timeout_s = timeout_s
        self._profile = tempfile.mkdtemp(prefix="lbarray-chromium-")
        its_in, self._out = os.pipe()
        self._in, its_out = os.pipe()
        command = [chromium, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]

        def place() -> None:
            """It reads descriptor 3 and writes descriptor 4; both ends first go where neither is."""
            reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (its_in, its_out))
            os.dup2(reads, 3)
            os.dup2(writes, 4)

        self._process = subprocess.Popen(
            command,
            preexec_fn=place,  # noqa: PLW1509  (this process has no threads but the reactor's idle ones)
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_in)
        os.close(its_out)
        self._number = 0
        self._buffer = b""
        self._events: deque[dict[str, Any]] = deque()

    def close(self) -> None:
        """End it, and remove its profile."""
        self._process.kill()
        self._process.wait(20)
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One command and its result.

        :raises RuntimeError: Chromium refuses it.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        octets = json.dumps(message).encode() + b"\0"
        while octets:
            octets = octets[os.write(self._out, octets) :]
        until = time.monotonic() + self.timeout_s
        while (said := self._read(until)).get("id") != self._number:
            self._events.append(said)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        result: dict[str, Any] = said["result"]
        return result

    def events(self, session: str) -> list[dict[str, Any]]:
        """What has happened in a page since it was last asked."""
        found = [event for event in self._events if event.get("sessionId") == session]
        self._events.clear()
        return found

    def _read(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            octets = os.read(self._in, 1 << 20)
            if not octets:
                raise RuntimeError(f"the browser has ended: exit code {self._process.wait(20)}")
            self._buffer += octets
        message, _, self._buffer = self._buffer.partition(b"\0")
        said: dict[str, Any] = json.loads(message)
        return said

    def page(self, *, width: int, height: int, scheme: str = "light", phone: bool = False) -> Page:
        """An empty page; ``scheme``: what its user likes, ``light`` or ``dark``."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log"):
            page.ask(f"{domain}.enable")
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        page.ask("Emulation.setTouchEmulationEnabled", enabled=phone)
        page.ask(
            "Emulation.setEmulatedMedia",
            features=[
                {"name": "prefers-color-scheme", "value": scheme},
                {"name": "prefers-reduced-motion", "value": "reduce"},
            ],
        )
        return page


class Page:
    """One page.

    :ivar errors: what its scripts and its content security policy complained of, after :meth:`look`.
    """

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self.errors: list[str] = []
        self._browser = browser
        self._target = target
        self._session = session

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """As :meth:`Browser.ask`."""
        return self._browser.ask(method, self._session, **parameters)

    def close(self) -> None:
        """Close it."""
        self.look()
        self._browser.ask("Target.closeTarget", targetId=self._target)

    def open(self, url: str) -> None:
        """Go there."""
        self.ask("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """What the script's value is. The page's content security policy does not bind it.

        :raises RuntimeError: it throws.
        """
        done = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(json.dumps(done["exceptionDetails"])[:1000])
        return done["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until its value is true.

        :raises TimeoutError: it takes too long.
        """
        until = time.monotonic() + self._browser.timeout_s
        while not self.run(f"Boolean({script})"):
            if time.monotonic() > until:
                raise TimeoutError(f"the page never had {script}")
            time.sleep(0.05)

    def has(self, selector: str) -> None:
        """Wait until there is such an element."""
        self.until(f"document.querySelector({json.dumps(selector)})")

    def focus(self, selector: str) -> None:
        """Put the keyboard's focus there."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")

    def press(self, key: str) -> None:
        """One key: ``Enter``, ``Tab`` or ``Escape``."""
        code, number, text = _KEYS[key]
        common: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """As if typed."""
        self.ask("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def look(self) -> None:
        """Gather what went wrong until now."""
        self.ask("Runtime.evaluate", expression="0")  # whatever was on its way is there after this
        for event in self._browser.events(self._session):
            said = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(said["exceptionDetails"])[:500])
            elif event["method"] == "Log.entryAdded" and said["entry"]["level"] == "error":
                self.errors.append(said["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and said["type"] == "error":
                self.errors.append(json.dumps(said["args"])[:500])

    def picture(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
