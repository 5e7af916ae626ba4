"""The command line, and what twistd makes of its options."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands import main
from lbarray.tap import Options, RewriteOptions, makeService
from lbarray.testbed.nodes import twistd

ROOT = Path(__file__).resolve().parent.parent.parent


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return code, out.getvalue(), err.getvalue()


class CheckTests(SynchronousTestCase):
    """``lbarray check``."""

    def test_good(self) -> None:
        """A summary of what it will do, exit 0."""
        code, out, _ = run("check", str(ROOT / "etc" / "standalone.toml"))
        self.assertEqual(code, 0)
        self.assertIn("one standalone node", out)
        self.assertIn("https://cdn.example.net/", out)

    def test_bad(self) -> None:
        """Every mistake with key, found and accepted, exit 1."""
        path = Path(self.mktemp())
        path.write_text("[services.http]\nport = 'x'\naddres = '127.0.0.1'\n")
        code, out, err = run("check", str(path))
        self.assertEqual((code, out), (1, ""))
        self.assertIn('services.http.port: found "x"; accepted: a whole number from 1 to 65535', err)
        self.assertIn('services.http.addres: found an unknown key; accepted: "address" (nearest known key)', err)


class TwistdTests(SynchronousTestCase):
    """``twistd lbarray``."""

    def test_listed(self) -> None:
        """twistd --help names the plug-in and says what it is."""
        out = subprocess.run([*twistd(), "--help"], capture_output=True, text=True, check=True).stdout
        self.assertIn("lbarray", out)
        self.assertIn("decrypting load balancing array", " ".join(out.split()))

    def test_sub_commands(self) -> None:
        """Every role can be had alone."""
        self.assertEqual([command[0] for command in Options.subCommands], ["node", "scheduler", "worker", "rewrite"])
        for name in ("node", "scheduler", "worker"):
            options = Options()
            options.parseOptions([name, "--config", "x"])
            self.assertEqual(options.subCommand, name)

    def test_needs_a_configuration(self) -> None:
        """Without one it says so."""
        error: usage.UsageError = self.assertRaises(usage.UsageError, Options().parseOptions, [])
        self.assertIn("--config", str(error))

    def test_clock(self) -> None:
        """Timers run by a clock that nobody sets back, from the first one on."""
        code = (
            "import time; from twisted.internet import reactor; from lbarray.tap import Options, makeService\n"
            "options = Options(); options.parseOptions(['--config', 'etc/standalone.toml']); makeService(options)\n"
            "call = reactor.callLater(5, print)\n"
            "assert abs(call.getTime() - time.monotonic() - 5) < 1, call.getTime()\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def refused(self, *arguments: str) -> str:
        options = Options()
        options.parseOptions(list(arguments))
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            error: SystemExit = self.assertRaises(SystemExit, makeService, options)
        self.assertEqual(error.code, 1)
        return err.getvalue()

    def test_unknown_node(self) -> None:
        """A node that the configuration lacks, or that was not named: those that there are."""
        folder = Path(self.mktemp())
        folder.mkdir()
        text = (ROOT / "etc" / "array.toml").read_text()
        (folder / "array.toml").write_text(
            text.replace('tls = { certificate = "tls/site.crt", key = "tls/site.key" }', "")
        )
        (folder / "array.key").touch(mode=0o600)
        (folder / "array.key").write_text("0123456789abcdef0123456789abcdef")
        config = str(folder / "array.toml")
        self.assertIn('--node: found "d"', self.refused("--config", config, "--node", "d"))
        self.assertIn("a, b, c", self.refused("--config", config))

    def test_rewrite_without_a_file(self) -> None:
        """The rewriting proxy's options are a configuration."""
        options = Options()
        options.parseOptions(
            ["rewrite", "--site", "127.0.0.1:8001", "--cdn", "cdn.example", "--path", "/a/", "--path", "/b/"]
        )
        chosen = options.subOptions
        assert isinstance(chosen, RewriteOptions)
        config = chosen.as_config()
        assert config.cdn is not None
        self.assertEqual(config.cdn.paths, ("/a/", "/b/"))
        self.assertEqual(str(config.service_id("http")), "127.0.0.1:8080/tcp")

    def test_rewrite_says_what_it_needs(self) -> None:
        """All missing options at once, with an example."""
        error: usage.UsageError = self.assertRaises(usage.UsageError, Options().parseOptions, ["rewrite"])
        for name in ("--site", "--cdn", "--path"):
            self.assertIn(name, str(error))

    def test_no_option_smuggles_toml(self) -> None:
        """A value with quotes in it is a bad value, not another key."""
        text = self.refused("rewrite", "--site", 'x:1"\n[worker]\nexpose = true #', "--cdn", "c", "--path", "/")
        self.assertIn("pools.site.backends.site.address", text)


class PackageTests(SynchronousTestCase):
    """What an installed package holds."""

    def test_wheel(self) -> None:
        """The plug-in lies where twistd looks, the packet program's sources are there, no tests."""
        folder = self.mktemp()
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "-w", folder]
        done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        self.assertIn("twisted/plugins/lbarray_plugin.py", names)
        self.assertIn("lbarray/bpf/scheduler.bpf.c", names)
        self.assertIn("lbarray/bpf/abi.h", names)
        self.assertIn("lbarray/py.typed", names)
        for page in ("index.html", "dashboard.js", "dashboard.css"):
            self.assertIn(f"lbarray/console/page/{page}", names)
        self.assertEqual([name for name in names if name.startswith(("tests", "benchmarks"))], [])
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
