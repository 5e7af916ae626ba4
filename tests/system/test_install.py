"""From a source archive to a node that serves, in a virtual environment that knows nothing of this tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.testbed.nodes import wait_for
from tests.system.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
#: What is no part of the sources.
_IGNORED = shutil.ignore_patterns(".git", ".venv", "build", "__pycache__", "*.so", "*.o", "_trial_temp*", "*.egg-info")


class InstallTests(SynchronousTestCase):
    """As whoever types ``pip install lbarray`` has it."""

    @staticmethod
    def environment() -> dict[str, str]:
        """Nothing that is the developer's: no PYTHONPATH, no virtual environment."""
        kept = ("PATH", "HOME", "LANG")
        return {key: value for key, value in os.environ.items() if key in kept or key.startswith("PIP_")}

    def run_(self, *command: str, cwd: Path | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="lbarray-install-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def build(self) -> tuple[Path, Path]:
        """A source archive, and the wheel that is built of nothing but it."""
        tree = self.folder / "tree"
        shutil.copytree(ROOT, tree, ignore=_IGNORED)
        make = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
        self.run_(sys.executable, "-c", make, str(self.folder / "dist"), cwd=tree)
        (archive,) = (self.folder / "dist").glob("*.tar.gz")
        shutil.rmtree(tree)
        quiet = ["-q", "--disable-pip-version-check"]
        self.run_(sys.executable, "-m", "pip", "wheel", *quiet, "--no-deps", "-w", "dist", str(archive))
        (wheel,) = (self.folder / "dist").glob("*.whl")
        return archive, wheel

    def test_pip_install(self) -> None:
        """Source archive and wheel are complete: the installed program starts, checks, and serves a request."""
        archive, wheel = self.build()
        with tarfile.open(archive) as opened:
            inside = {name.partition("/")[2] for name in opened.getnames()}
        self.assertLessEqual({"etc/lbarray.service", "debian/rules", "docs/index.rst"}, inside)
        self.assertIn("lbarray/bpf/abi.h", zipfile.ZipFile(wheel).namelist())

        base = getattr(sys, "_base_executable", sys.executable)
        self.run_(base, "-m", "venv", "venv")
        bin_ = self.folder / "venv" / "bin"
        installed = subprocess.run(
            [str(bin_ / "pip"), "install", "-q", "--no-compile", "--disable-pip-version-check", str(wheel)],
            capture_output=True, text=True, check=False, timeout=240, cwd=self.folder, env=self.environment(),
        )  # fmt: skip
        if installed.returncode and "No matching distribution" in installed.stderr + installed.stdout:
            if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
                self.fail(installed.stderr[-2000:])
            raise SkipTest("no package registry here")
        self.assertEqual(installed.returncode, 0, installed.stderr[-2000:])

        where = self.run_(str(bin_ / "python"), "-c", "import lbarray; print(lbarray.__file__)")
        self.assertTrue(where.startswith(str(self.folder)), where)
        self.assertRegex(self.run_(str(bin_ / "lbarray"), "--version"), r"\d+\.\d+")
        self.assertRegex(self.run_(str(bin_ / "twistd"), "--help"), r"\n +lbarray +\S")
        if shutil.which("clang"):
            self.assertIn("scheduler.bpf.o", self.run_(str(bin_ / "python"), "-m", "lbarray.bpf.build"))

        http, status, site = free_ports(3)
        config = self.folder / "lbarray.toml"
        self.run_(
            str(bin_ / "lbarray"), "init", "--backends", f"127.0.0.1:{site}", "--listen", "127.0.0.1",
            "--port", str(http), str(config),
        )  # fmt: skip
        text = config.read_text().replace("127.0.0.1:9080", f"127.0.0.1:{status}")
        config.write_text(text.replace("[array]\n", f'[array]\nstate_dir = "{self.folder}/state"\n', 1))
        self.assertIn("http", self.run_(str(bin_ / "lbarray"), "check", str(config)))

        (self.folder / "site").mkdir()
        (self.folder / "site" / "index.html").write_text("installed")
        for command in (
            [sys.executable, "-m", "http.server", str(site), "--bind", "127.0.0.1", "--directory", "site"],
            [str(bin_ / "twistd"), "-n", "--pidfile=", "lbarray", "--config", str(config)],
        ):
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=self.environment())
            self.addCleanup(process.wait, 20)
            self.addCleanup(process.terminate)

        def served() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/", timeout=2) as answer:
                    return bool(answer.read() == b"installed")
            except OSError:
                return False

        wait_for(served, "a page through the installed node", 30, 0.2)
        with urllib.request.urlopen(f"http://127.0.0.1:{status}/status", timeout=5) as answer:
            self.assertEqual(sum(each["requests"] > 0 for each in json.load(answer)["services"].values()), 1)
