"""SVG and MathML within HTML: which rules hold for the next tag (WHATWG HTML §13.2.6, §13.2.6.5).

Whether ``<title>`` begins a text or an element with markup depends on the tree that is built from everything before.
Outside of SVG and MathML no tree is needed. Within, their elements are kept as the tree builder keeps them, and where
its decision would depend on more than what is kept, that is said: ``doubt``.
"""

from __future__ import annotations

__all__ = ["ForeignContent"]

_HTML, _SVG, _MATH = b"html", b"svg", b"math"

_BREAKOUT = frozenset(
    b"b big blockquote body br center code dd div dl dt em embed h1 h2 h3 h4 h5 h6 head hr i img li listing menu meta "
    b"nobr ol p pre ruby s small span strong strike sub sup table tt u ul var".split()
)
_TEXT_POINTS = frozenset(b"mi mo mn ms mtext".split())
_HTML_POINTS = frozenset(b"foreignobject desc title".split())
_VOID = frozenset(b"area base br embed hr img image input link meta param source track wbr bgsound basefont".split())
_INLINE = frozenset(
    b"a b i em strong u s small code big tt strike font span sub sup label abbr cite q mark time var kbd samp del ins "
    b"video audio picture canvas script style title textarea iframe xmp noembed noframes".split()
)
#: Of these the tree builder opens again what was closed with something around it (§13.2.4.3).
_FORMATTING = frozenset(b"a b i em strong u s small code big tt strike font".split())
#: They close a ``p``.
_BLOCKS = frozenset(
    b"p div section article aside header footer main nav figure figcaption address center ul ol blockquote".split()
)
#: End tags of these close nothing of HTML's, and no integration point from within HTML.
_NO_HTML = frozenset([_SVG, _MATH, *_HTML_POINTS, *_TEXT_POINTS])


class ForeignContent:
    """The open elements from the outermost ``svg`` or ``math`` on.

    :ivar doubt: whether HTML's rules or foreign ones hold is not known; a tag to which that matters must not be
        interpreted.
    """

    def __init__(self) -> None:
        self._open: list[tuple[bytes, bytes]] = []
        self._points: list[bool] = []
        self._lasting_doubt = False
        self._passing_doubt = False

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def doubt(self) -> bool:
        return self._lasting_doubt or self._passing_doubt

    @property
    def cdata(self) -> bool:
        """``<![CDATA[`` begins a section here: the current node is none of HTML's (§13.2.5.42)."""
        return bool(self._open) and self._open[-1][0] != _HTML

    def _push(self, space: bytes, name: bytes, html_point: bool) -> None:
        self._open.append((space, name))
        self._points.append(html_point)

    def _pop_to(self, size: int) -> None:
        del self._open[size:], self._points[size:]
        if not self._open:
            self._passing_doubt = False

    def _html_rules(self, name: bytes) -> bool:
        space, current = self._open[-1]
        if space == _HTML or self._points[-1]:
            return True
        if space == _MATH and current in _TEXT_POINTS:
            return name not in (b"mglyph", b"malignmark")
        return space == _MATH and current == b"annotation-xml" and name == b"svg"

    def start(self, name: bytes, *, closed: bool, breaks: bool = False, html_annotation: bool = False) -> bool:
        """A start tag: HTML's rules hold for it.

        :param closed: it ends in ``/>``.
        :param breaks: a ``font`` with ``color``, ``face`` or ``size``.
        :param html_annotation: an ``annotation-xml`` whose ``encoding`` is that of HTML.
        """
        if self._open and not self._html_rules(name):
            if name not in _BREAKOUT and not breaks:
                if not closed:
                    space = self._open[-1][0]
                    point = (space == _SVG and name in _HTML_POINTS) or html_annotation
                    self._push(space, name, point)
                return False
            self._break_out()
        if name in (_SVG, _MATH):
            if not closed:
                self._push(name, name, False)
        elif self._open and name not in _VOID:
            if name in _BLOCKS:
                self._close_paragraph()
            elif name not in _INLINE or (name == b"a" and name in self._frame()):
                self._lasting_doubt = True
            self._push(_HTML, name, False)
        return True

    def _frame(self) -> list[bytes]:
        """HTML's elements within the innermost integration point, the innermost first."""
        names = []
        for space, name in reversed(self._open):
            if space != _HTML:
                break
            names.append(name)
        return names

    def _close_paragraph(self) -> None:
        frame = self._frame()
        if b"p" in frame:
            closed = frame[: frame.index(b"p") + 1]
            if not _FORMATTING.isdisjoint(closed):
                self._lasting_doubt = True
            self._pop_to(len(self._open) - len(closed))

    def _break_out(self) -> None:
        size = len(self._open)
        while size and not self._stays(size - 1):
            size -= 1
        self._pop_to(size)

    def _stays(self, place: int) -> bool:
        space, name = self._open[place]
        return space == _HTML or self._points[place] or (space == _MATH and name in _TEXT_POINTS)

    def end(self, name: bytes) -> None:
        """An end tag."""
        if not self._open:
            return
        if self._open[-1][0] == _HTML:
            self._end_html(name)
            return
        if name in (b"p", b"br"):
            self._break_out()
            if self._open and self._open[-1][0] == _HTML:
                self._end_html(name)
            return
        for place in range(len(self._open) - 1, -1, -1):
            space, open_name = self._open[place]
            if space == _HTML:
                self._lasting_doubt = True
                return
            if open_name == name:
                self._pop_to(place)
                return
        # It may close something around the SVG, and the SVG with it; or nothing.
        self._passing_doubt = True

    def _end_html(self, name: bytes) -> None:
        if self._open[-1][1] == name:
            self._pop_to(len(self._open) - 1)
        elif name == b"p":
            self._close_paragraph()
        elif name != b"br" and name not in _NO_HTML:
            self._lasting_doubt = True
