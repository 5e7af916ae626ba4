"""A small site as a back end would serve it: pages, images, a style sheet, a script."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

__all__ = ["write_site"]

_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Garden tools & more</title>
<link rel="stylesheet" href="/static/site.css?v=7">
<link rel="icon" href="/static/icon.png">
<link rel="canonical" href="https://shop.example.com/">
<script src="/static/site.js" defer></script>
<script>var preload = '<img src="/static/not-a-tag.png">';</script>
</head>
<body>
<!-- <img src="/static/commented-out.png"> -->
<h1>Garden tools</h1>
<p>Read <a href="/about.html">about us</a> or <a href='/static/catalogue.pdf'>the catalogue</a>.</p>
<img src="/images/spade.png" alt="A spade"
     srcset="/images/spade.png 1x, /images/spade-2x.png 2x">
<picture>
  <source srcset="/images/rake-wide.png 1200w, images/rake.png 600w" sizes="50vw">
  <img src='images/rake.png' alt=rake>
</picture>
<img src="https://shop.example.com/images/hoe.png?w=1&amp;h=2" alt="A hoe">
<img src="https://elsewhere.example.org/images/partner.png" alt="A partner">
<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" alt="">
<form action="/order" method="post"><input name="amount" value="1"></form>
</body>
</html>
"""

_ABOUT = """<!DOCTYPE html>
<title>About</title>
<img src=/images/spade.png><p>Nothing else here.
"""

_CSS = """body { font: 16px/1.5 sans-serif; background: url("/images/paper.png"); }
h1 { background: url(../images/spade.png) no-repeat; }
"""

_JS = 'document.addEventListener("DOMContentLoaded", () => console.log("/static/site.js is here"));\n'


def _png(shade: int) -> bytes:
    """An image of 8 by 8 pixels of grey."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes([shade]) * 8) * 8
    head = struct.pack("!IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def write_site(folder: Path, server: str) -> None:
    """Write the files; ``whoami.html`` names the ``server``."""
    for name in ("static", "images"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(_INDEX)
    (folder / "about.html").write_text(_ABOUT)
    (folder / "whoami.html").write_text(f"<!DOCTYPE html>\n<title>{server}</title>\n<p>This is {server}.\n")
    (folder / "health").write_text("well\n")
    (folder / "static" / "site.css").write_text(_CSS)
    (folder / "static" / "site.js").write_text(_JS)
    for shade, name in enumerate(("spade", "spade-2x", "rake", "rake-wide", "hoe", "paper")):
        (folder / "images" / f"{name}.png").write_bytes(_png(40 * shade))
    (folder / "static" / "icon.png").write_bytes(_png(255))
    (folder / "large.bin").write_bytes(bytes(range(256)) * 8192)
