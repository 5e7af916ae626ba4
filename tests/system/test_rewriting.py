"""Rewriting in a browser: Chromium reads what comes out, and shows it."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from lbarray.rewrite.documents import StyleSheetRewriter
from lbarray.rewrite.rules import CdnRules, Page
from lbarray.testbed.browser import CHROMIUM, dump_dom, pixels, screenshot
from lbarray.testbed.namespaces import run
from lbarray.testbed.nodes import CDN, SITE, VIP, Array, wait_for
from lbarray.testbed.site import write_site
from tests.rewrite.oracle import PLACES
from tests.rewrite.test_corpus import ALL, PROBE, cases, rewrite, shipped_pages
from tests.rewrite.test_foreign import FRAGMENTS
from tests.system.test_array import need_namespaces

CDN_ADDRESS = "10.77.0.50"
PLAIN = "plain.example.com"

#: Compares the trees of pairs of pages and says which differ beyond the intended attributes.
_ORACLE = """<!DOCTYPE html><meta charset=utf-8><pre id=result></pre><script>
const places = %(places)s, cdn = "https://cdn.example";
function text(octets) { return new TextDecoder().decode(Uint8Array.from(atob(octets), c => c.charCodeAt(0))); }
function alike(name, a, b) {
  if (b.replaceAll(cdn, "") === a) return true;
  if (/srcset|style/.test(name)) return b.includes(cdn) && a.split(/\\s+/).length === b.split(/\\s+/).length;
  try { return new URL(a.trim(), "https://site.example/folder/page.html").href.replace("https://site.example", cdn)
      === new URL(b.trim()).href; } catch { return false; }
}
function difference(a, b) {
  if (a.nodeType !== b.nodeType || a.nodeName !== b.nodeName || a.namespaceURI !== b.namespaceURI) return a.nodeName;
  const inStyle = a.parentNode && a.parentNode.localName === "style";
  if (a.nodeValue !== b.nodeValue && !(inStyle && alike("style", a.nodeValue, b.nodeValue))) return a.nodeName;
  if (a.nodeType === 1) {
    const names = new Set([...a.getAttributeNames(), ...b.getAttributeNames()]);
    const allowed = [...(places[a.localName.toLowerCase()] || []), "style", "background"];
    for (const name of names) {
      const x = a.getAttribute(name), y = b.getAttribute(name);
      if (x === y) continue;
      if (x === null || y === null || !allowed.includes(name) || !alike(name, x, y)) return name + " " + x + " " + y;
    }
  }
  const inner = node => node.localName === "template" && node.content ? node.content : node;
  const one = inner(a).childNodes, two = inner(b).childNodes;
  if (one.length !== two.length) return a.nodeName + " has other children";
  for (let i = 0; i < one.length; i++) { const found = difference(one[i], two[i]); if (found) return found; }
  return null;
}
const found = [], parser = new DOMParser();
let count = 0;
for (const [before, after] of %(pairs)s) {
  count++;
  const [one, two] = [before, after].map(octets => parser.parseFromString(text(octets), "text/html"));
  const why = difference(one, two);
  if (why) found.push([before, why]);
}
document.getElementById("result").textContent = btoa(unescape(encodeURIComponent(JSON.stringify([count, found]))));
</script>"""


#: Compares what Chromium reads of style sheets before and after.
_SHEETS = """<!DOCTYPE html><meta charset=utf-8><pre id=result></pre><script>
const cdn = "https://cdn.example", found = [];
function text(octets) { return new TextDecoder().decode(Uint8Array.from(atob(octets), c => c.charCodeAt(0))); }
function read(octets) {
  const style = document.createElement("style");
  style.textContent = text(octets);
  document.head.append(style);
  const rules = [...style.sheet.cssRules].map(rule => rule.cssText).join("\\n");
  style.remove();
  return rules;
}
let count = 0, seen = 0;
for (const [before, after] of %(pairs)s) {
  count++;
  const one = read(before), two = read(after);
  seen += two.includes(cdn);
  if (two.replaceAll(cdn, "") !== one) found.push([before, two]);
}
document.getElementById("result").textContent = btoa(unescape(encodeURIComponent(JSON.stringify([seen, found]))));
</script>"""
_CSS = [
    "url(/static/x)", "url( '/static/y' )", 'url("/static/z")', "@import '/static/i';", "@import url(/static/j);",
    "image-set('/static/s' 1x)", "a{b:", "a{background:", "c:d;", "}", ";", "'", '"', "/*", "*/", "\\", "(", ")",
    "\n", " ", "x", "/static/n", "content:'url(/static/q)'", ":is(a)", "@media all{", "format('f')",
    "@font-face{src:", "url(", "u\\72l(/static/e)", "calc(1px*(2 + 3))", "{", "background-image:", "--v:",
]  # fmt: skip


def need_browser() -> None:
    """Skip without a browser, unless system tests are required."""
    if shutil.which(CHROMIUM) is None:
        if os.environ.get("LBARRAY_REQUIRE_SYSTEM"):
            raise AssertionError(f"system tests are required: {CHROMIUM} is missing")
        raise SkipTest(f"missing: {CHROMIUM}")


class BrowserTreeTests(SynchronousTestCase):
    """What Chromium's parser makes of pages before and after."""

    def compare(self, pages: list[bytes]) -> tuple[int, list[Any]]:
        need_browser()
        pairs = []
        for page in pages:
            out, _ = rewrite(ALL, page)
            if out != page:
                pairs.append([base64.b64encode(octets).decode() for octets in (page, out)])
        places = json.dumps({name: sorted(attributes) for name, attributes in PLACES.items()})
        count, wrong = self.ask(_ORACLE % {"places": places, "pairs": json.dumps(pairs)})
        self.assertEqual(count, len(pairs))
        return count, wrong

    def ask(self, oracle: str) -> tuple[int, list[Any]]:
        """What a page's script found: how many pairs, and which are wrong."""
        page = Path(self.mktemp() + ".html").resolve()
        page.write_text(oracle)
        dom = dump_dom(page.as_uri())
        found = re.search(r'<pre id="result">([^<]+)</pre>', dom)
        assert found is not None, dom[-500:]
        count, wrong = json.loads(base64.b64decode(found[1]))
        return count, [(base64.b64decode(octets), why) for octets, why in wrong]

    def test_cases(self) -> None:
        """The cases of html5lib-tests with a reference behind, and soup of the worst: the trees differ in the intended
        attributes only."""
        soup = [
            "".join(FRAGMENTS[(seed * 7919 + place * place * 31) % len(FRAGMENTS)] for place in range(10))
            for seed in range(2000)
        ]
        count, wrong = self.compare([*(case + PROBE for case in cases()), *(each.encode() for each in soup)])
        self.assertEqual(wrong[:5], [])
        self.assertGreater(count, 1500)

    def test_shipped_pages(self) -> None:
        """Pages of packages likewise."""
        count, wrong = self.compare([path.read_bytes() for path in shipped_pages()])
        self.assertEqual(wrong[:5], [])
        self.assertGreater(count, 3)

    def test_style_sheets(self) -> None:
        """Of soup of style sheets Chromium reads the same as before, but for the CDN's name."""
        need_browser()
        choose = random.Random(7)
        sheets = ["".join(choose.choices(_CSS, k=choose.randint(2, 12))) for _ in range(4000)]
        pairs = []
        for sheet in sheets:
            rewriter = StyleSheetRewriter(CdnRules(hosts=["cdn.example"], paths=["/static/"]), Page(b"s", b"/"))
            out = rewriter.feed(sheet.encode()) + rewriter.finish()
            if out != sheet.encode():
                pairs.append([base64.b64encode(octets).decode() for octets in (sheet.encode(), out)])
        seen, wrong = self.ask(_SHEETS % {"pairs": json.dumps(pairs)})
        self.assertEqual(wrong[:5], [])
        self.assertGreater(seen, 200)


class BrowserSiteTests(SynchronousTestCase):
    """The demo's site through an array, with a CDN beside it."""

    def test_looks_the_same(self) -> None:
        """Chromium loads the static content from the CDN, and every pixel is as without it; when the CDN fails, pages
        lead back to the site."""
        need_namespaces()
        need_browser()

        def edit(text: str) -> str:
            check = f'\n[cdn.check]\npath = "/health"\nconnect = "{CDN_ADDRESS}:80"\ninterval = "200ms"\nfall = 1\n'
            pages = f'\n[[cdn.pages]]\nhost = "{PLAIN}"\nrewrite = false\n'
            return text.replace(f'host = "{CDN}"\n', f'host = "{CDN}"\nscheme = "http"\n') + check + pages

        with Array(nodes={"a": "10.77.0.1"}, edit=edit) as array:
            host = array.network.add("cdn", f"{CDN_ADDRESS}/24")
            folder = array.folder / "cdn"
            write_site(folder / "site", "cdn")
            log = folder / "access.log"
            (folder / "nginx.conf").write_text(
                f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
                "events { worker_connections 64; }\n"
                f"http {{ access_log {log}; types {{ text/css css; application/javascript js; image/png png; }}\n"
                + "".join(
                    f"{kind}_temp_path {folder}/{kind}; "
                    for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
                )
                + f"server {{ listen 80; root {folder}/site; }} }}\n"
            )
            run(["chmod", "-R", "a+rX", str(folder)])  # nginx drops its privileges for files that it must read
            with (folder / "out.log").open("ab") as out:
                host.start("nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf"), log=out)
            array.wait_ready()

            def page() -> str:
                return array.client.run("curl", "-s", "-m", "5", "--resolve", f"{SITE}:80:{VIP}", f"http://{SITE}/")

            wait_for(lambda: f"http://{CDN}/" in page(), "pages that lead to the CDN")
            names = {SITE: VIP, PLAIN: VIP, CDN: CDN_ADDRESS}
            inside = array.client.inside()
            for site in (PLAIN, SITE):
                screenshot(f"http://{site}/", array.folder / f"{site}.png", inside=inside, names=names)
            asked = log.read_text()
            for path in ("/static/site.css?v=7", "/static/site.js", "/images/spade.png", "/images/paper.png"):
                self.assertRegex(asked, f'"GET {re.escape(path)} HTTP/1.1" 200')
            self.assertTrue(pixels(array.folder / f"{PLAIN}.png") == pixels(array.folder / f"{SITE}.png"))
            host.kill()
            wait_for(lambda: f"http://{CDN}/" not in page(), "pages that lead back to the site")
            status = array.status("a")
            assert status is not None
            self.assertEqual(status["rewriting"]["cdn_failing"], [f"http://{CDN}"])
