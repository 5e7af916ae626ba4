"""The dashboard: one page, its script and its style, as they lie in the package."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from twisted.web.http import Request

from lbarray.console.access import Access, Caller
from lbarray.console.resources import ApiResource
from lbarray.console.view import NodeView

__all__ = ["FILES", "PageFile"]

#: By path: the file in ``lbarray/console/page`` and its type.
FILES: Final = {
    "": ("index.html", "text/html; charset=utf-8"),
    "dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
}

#: Nothing from elsewhere, nothing in line, in nobody's frame: a name that somebody smuggled into the status stays text.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageFile(ApiResource):
    """One of the three files. They hold nothing of the array, so anybody who reaches the port may have them."""

    isLeaf = True
    open_to_all = True

    def __init__(self, view: NodeView, access: Access, path: str) -> None:
        super().__init__(view, access)
        name, self._content_type = FILES[path]
        self._content = (files("lbarray.console") / "page" / name).read_bytes()

    def do_GET(self, request: Request, caller: Caller) -> bytes:
        request.setHeader(b"content-security-policy", _POLICY.encode())
        request.setHeader(b"referrer-policy", b"no-referrer")
        return self.send(request, self._content, self._content_type)
