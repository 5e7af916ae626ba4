"""Pages to rewrite: a shop's, and a manual's."""

from __future__ import annotations

__all__ = ["manual", "shop"]

_ITEM = (
    '<div class="item" id="p{0}"><a href="/shop/p{0}.html">'
    '<img src="/static/p{0}.jpg" alt="Product {0}" width="160">'
    "</a><h2>Product {0}</h2><p>{1}</p></div>\n"
)
_WORDS = "Sturdy, simple and made to last; delivered within three days. " * 8
_HEAD = '<!DOCTYPE html><html><head><meta charset="utf-8"><title>Shop</title></head><body>\n'


def shop(products: int) -> bytes:
    """Products, each with an image, a link and some words: about 640 octets each, one of its references moves."""
    return (_HEAD + "".join(_ITEM.format(number, _WORDS) for number in range(products)) + "</body></html>\n").encode()


def manual(sections: int = 7000) -> bytes:
    """Headings, links, code with many small elements, and hardly an image: about 215 octets for each section."""
    section = (
        '<section id="s{0}"><h3>function_{0}()<a class="headerlink" href="#s{0}">¶</a></h3>\n'
        '<pre><span class="k">def</span> <span class="nf">f{0}</span>(<span class="n">x</span>)</pre>\n'
        "<p>Since {0}; see <code>f{0}</code>.</p></section>\n"
    )
    logo = '<img src="/static/logo.png">\n<script src="/static/manual.js"></script>\n'
    return (_HEAD + logo + "".join(section.format(number) for number in range(sections)) + "</body></html>\n").encode()
