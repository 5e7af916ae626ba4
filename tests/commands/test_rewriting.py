"""``lbarray rewrite``: what would change, before it does."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lbarray.commands import main

PAGE = b'<html>\n<img src="/static/x">\n<script src="/static/y" integrity="sha256-z"></script>\n'


class RewriteTests(SynchronousTestCase):
    """The command line."""

    def run_on(self, page: bytes, *arguments: str) -> tuple[int, str, str]:
        path = Path(self.mktemp() + ".html")
        path.write_bytes(page)
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["rewrite", str(path), *arguments])
        return code, out.getvalue(), err.getvalue()

    def test_differences_and_counts(self) -> None:
        """Each change with its line; what was left, and why; the result as a file."""
        output = Path(self.mktemp())
        code, out, _ = self.run_on(PAGE, "--cdn", "cdn.example", "--path", "/static/", "--output", str(output))
        self.assertEqual(code, 0)
        self.assertIn('@@ line 2 @@\n- <img src="/static/x">\n+ <img src="https://cdn.example/static/x">', out)
        self.assertIn("tags left as they are: integrity", out)
        self.assertEqual(output.read_bytes(), PAGE.replace(b'"/static/x', b'"https://cdn.example/static/x'))

    def test_rules_of_a_configuration(self) -> None:
        """The [cdn] of a file, whatever share of the clients it is for; relative addresses start at --url."""
        config = Path(self.mktemp() + ".toml")
        config.write_text(
            '[services.web]\naddress = "127.0.0.1"\nport = 8080\n'
            '[pools.web.backends]\nw = { address = "127.0.0.1:8001" }\n'
            '[cdn]\nhost = "cdn.example"\npaths = ["/a/"]\npercent = 0\n'
        )
        code, out, err = self.run_on(
            b"<img src=x>", "--config", str(config), "--url", "http://site.example/a/b", "--counts"
        )
        self.assertEqual((code, err), (0, ""))
        self.assertIn("URLs that lead to the CDN  1", out)
        self.assertNotIn("@@", out)

    def test_no_rules(self) -> None:
        """Without rules it says what it needs."""
        code, _, err = self.run_on(PAGE)
        self.assertEqual(code, 1)
        self.assertIn("--config FILE, or --cdn HOST and --path PREFIX", err)


class CheckTests(SynchronousTestCase):
    """``lbarray check`` with plug-ins."""

    def test_missing_plugin(self) -> None:
        """A filter that is not installed is a mistake of the configuration, named with its key."""
        config = Path(self.mktemp() + ".toml")
        config.write_text(
            '[services.web]\naddress = "127.0.0.1"\nport = 8080\n'
            '[pools.web.backends]\nw = { address = "127.0.0.1:8001" }\n[[filters]]\nuse = "no-such"\n'
        )
        err = io.StringIO()
        with contextlib.redirect_stderr(err):
            self.assertEqual(main(["check", str(config)]), 1)
        self.assertIn('filters[0].use: found "no-such"', err.getvalue())
