"""Filters of others: the examples of the documentation, and what happens when one fails."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lbarray.errors import BadConfig
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IContentFilter, IRewriteFilter, IRewriteFilterFactory, ITreeFilter
from lbarray.rewrite.plugins import make_filter
from lbarray.rewrite.service import Chained, RewriteService
from lbarray.telemetry.counters import Counters
from lbarray.values import ClientAddress
from tests.rewrite.test_service import gzip, make_cdn

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "filters.py"
HTML = (b"Content-Type", b"text/html")
PAGE = b'<html><body class="x">hello<script src="//t.example/t.js"></script><img src=/static/x></body></html>'


def examples() -> Any:
    spec = importlib.util.spec_from_file_location("example_filters", EXAMPLES)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_filters"] = module
    spec.loader.exec_module(module)
    return module


@implementer(IRewriteFilter)
class Failing:
    """Raises where it is told to."""

    name = "failing"

    def __init__(self, where: str) -> None:
        self._where = where

    def open(self, page: Any, response: ResponseHead) -> Any:
        response.fields.append((b"X-Half", b"done"))
        if self._where == "open":
            raise RuntimeError("open")
        return FailingTree() if self._where == "tree" else FailingContent(self._where)


@implementer(ITreeFilter)
class FailingTree:
    def change(self, soup: Any) -> None:
        raise RuntimeError("tree")


@implementer(IContentFilter)
class FailingContent:
    """Holds back ten octets."""

    def __init__(self, where: str) -> None:
        self.held = b""
        self._where = where
        self._calls = 0

    def feed(self, data: bytes) -> bytes:
        self._calls += 1
        if self._where == "feed" and self._calls == 2:
            raise RuntimeError("feed")
        whole = self.held + data
        self.held = whole[-10:]
        return whole[:-10]

    def finish(self) -> bytes:
        if self._where == "finish":
            raise RuntimeError("finish")
        return self.held


class ChainTests(TestCase):
    """Responses through a chain."""

    def setUp(self) -> None:
        self.counters = Counters()

    def service(self, *chain: Chained, cdn: bool = False) -> RewriteService:
        service = RewriteService(
            reactor=reactor, counters=self.counters, cdn=make_cdn(self.counters) if cdn else None, chain=chain
        )
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def through(
        self,
        service: RewriteService,
        *fields: tuple[bytes, bytes],
        page: bytes = PAGE,
        target: bytes = b"/",
        size: int = 7,
    ) -> tuple[bytes, ResponseHead]:
        head = ResponseHead(200, list(fields) or [HTML])
        request = RequestHead(b"GET", target, [], host=b"site.example")
        body = service.open(request, head, ClientAddress("192.0.2.1", 50000))
        if body is None:
            return page, head
        out = b""
        for at in range(0, len(page), size):
            out += body.feed(page[at : at + size])
        out += body.finish()
        while body.waiting is not None:
            await body.waiting
            out += body.finish()
        return out, head

    async def test_banner(self) -> None:
        """The first example: a banner behind the body's start tag, and its own references move as well."""
        banner = examples().banner.filter({"text": "Sale! <img src=/static/b>"})
        out, head = await self.through(self.service(Chained(filter=banner), cdn=True), HTML, (b"Content-Length", b"5"))
        wanted = PAGE.replace(b'"x">', b'"x"><p class="banner">Sale! <img src=/static/b></p>')
        self.assertEqual(out, wanted.replace(b"=/static", b"=https://cdn.example/static"))
        self.assertIsNone(head.get(b"content-length"))

    async def test_trackers(self) -> None:
        """The second: a tree without trackers, made in a thread; a page that is too large passes unchanged."""
        trackers = examples().without_trackers.filter({"hosts": ["t.example"]})
        out, _ = await self.through(self.service(Chained(filter=trackers)))
        self.assertNotIn(b"t.js", out)
        self.assertIn(b"hello", out)
        out, _ = await self.through(self.service(Chained(filter=trackers, max_size=20)))
        self.assertEqual(out, PAGE)
        self.assertEqual(self.counters.get("rewrite_bail_out", "without-trackers_too_large"), 1)

    async def test_tree_then_cdn(self) -> None:
        """What a tree filter leaves is seen by the filters behind it."""
        trackers = examples().without_trackers.filter({"hosts": ["t.example"]})
        out, _ = await self.through(self.service(Chained(filter=trackers), cdn=True))
        self.assertIn(b"https://cdn.example/static/x", out)
        self.assertNotIn(b"t.js", out)

    async def test_fields(self) -> None:
        """The third: fields alone; lengths and tags stay."""
        security = examples().security_fields.filter({})
        out, head = await self.through(
            self.service(Chained(filter=security)), HTML, (b"Content-Length", b"5"), (b"Server", b"x")
        )
        self.assertEqual(out, PAGE)
        self.assertEqual(head.fields, [HTML, (b"Content-Length", b"5"), (b"X-Content-Type-Options", b"nosniff")])

    async def test_routes(self) -> None:
        """A filter sees responses of its host and path only."""
        security = examples().security_fields.filter({})
        service = self.service(Chained(filter=security, host=b"*.example", path=b"/shop"))
        for target, added in ((b"/shop/x", True), (b"/shopping", False), (b"/", False)):
            _, head = await self.through(service, target=target)
            self.assertEqual(head.get(b"x-content-type-options") is not None, added, target)

    async def test_failing(self) -> None:
        """A filter that raises, wherever, loses nothing: the page goes out as it came, and the error is counted."""
        for where in ("open", "feed", "finish", "tree"):
            for fields, page in (((HTML,), PAGE), ((HTML, (b"Content-Encoding", b"gzip")), gzip(PAGE))):
                service = self.service(Chained(filter=Failing(where)))
                out, head = await self.through(service, *fields, page=page)
                if len(fields) == 2 and where != "open":
                    out = zlib.decompress(out, 31)
                self.assertEqual(out, page if where == "open" else PAGE, where)
                self.assertEqual(head.get(b"x-half") is None, where == "open")
        self.assertEqual(self.counters.get("rewrite_bail_out", "failing"), 8)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 8)

    def test_examples_provide(self) -> None:
        """The examples keep their interfaces."""
        module = examples()
        for factory, options in (
            (module.banner, {"text": "x"}),
            (module.without_trackers, {"hosts": []}),
            (module.security_fields, {}),
        ):
            verifyObject(IRewriteFilterFactory, factory)
            verifyObject(IRewriteFilter, factory.filter(options))


class FindingTests(SynchronousTestCase):
    """How plug-ins are found."""

    def test_found(self) -> None:
        """A file in twisted/plugins on the path is enough; wrong options are one clear problem."""
        folder = Path(self.mktemp()) / "twisted" / "plugins"
        folder.mkdir(parents=True)
        (folder / "my_filters.py").write_text(EXAMPLES.read_text())
        path = os.pathsep.join([str(folder.parents[1].resolve()), *filter(None, [os.environ.get("PYTHONPATH")])])
        out = subprocess.run(
            [sys.executable, "-m", "lbarray", "filters"],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(
            [line.split()[0] for line in out.stdout.splitlines()],
            ["banner", "security-fields", "without-trackers"],
            out.stderr,
        )

    def test_unknown(self) -> None:
        """A name that nobody has is a mistake of the configuration."""
        error = self.assertRaises(BadConfig, make_filter, "no-such", {}, "filters[0]")
        self.assertIn("filters[0].use", str(error))
