"""The content of one response: decoded, through the filters in their order, coded again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.interfaces import IBodyFilter
from lbarray.rewrite.charset import WIDE_MARKS
from lbarray.rewrite.codings import BrokenCoding, Coder, Decoder
from lbarray.telemetry.counters import Counters

__all__ = ["Content", "Pipeline", "Stage"]

#: Coded octets that may come before any content: a gzip member's head has its file's name, a zstd skippable frame more.
_LONGEST_CODING_HEAD = 65536
#: Octets of plain content that are worked on in one turn of the reactor: then others have theirs, and the client its
#: first octets.
_SLICE = 1 << 16


class Content(Protocol):
    """What a filter does with one response's content (:class:`lbarray.interfaces.IContentFilter`)."""

    @property
    def held(self) -> bytes:
        """What was fed and has not been given out, as it came."""

    def feed(self, data: bytes) -> bytes:
        """Content in, content out."""

    def finish(self) -> bytes:
        """The last content."""


class Stage:
    """One filter's work on one response. When it raises, everything passes it from there on.

    :param name: of the filter; ``page``: of the response; for the log.
    """

    _log = Logger()
    waiting: Deferred[Any] | None = None

    def __init__(self, content: Content, name: str, page: str, counters: Counters) -> None:
        self._content: Content | None = content
        self._name = name
        self._page = page
        self._counters = counters
        self.failed = False

    def feed(self, data: bytes) -> bytes:
        """Content in, content out."""
        content = self._content
        if content is None:
            return data
        held = content.held
        try:
            return content.feed(data)
        except Exception:
            self._fail()
            # Of what was held when it was called nothing has left.
            return held + data

    def finish(self) -> bytes:
        """The last content."""
        content, self._content = self._content, None
        if content is None:
            return b""
        held = content.held
        try:
            return content.finish()
        except Exception:
            self._fail()
            return held

    def _fail(self) -> None:
        self._content = None
        self.failed = True
        self._counters.add("rewrite_bail_out", self._name)
        self._log.failure("the filter {name} failed on {page}; it goes on as it came", name=self._name, page=self._page)


@implementer(IBodyFilter)
class Pipeline:
    """The stages of one response.

    :param stages: in their order, of plain content.
    :param later: calls back in another turn of the reactor; ``None`` where everything may be done at once.
    :ivar at_once: the same for now.
    :param rewriter: of the last stage, which sends readers to the CDN: what it did is counted at the end.
    """

    def __init__(
        self,
        stages: Sequence[Any],
        *,
        reader: Decoder | None,
        writer: Coder | None,
        counters: Counters,
        later: Callable[[Callable[[], None]], object] | None = None,
        rewriter: Any = None,
    ) -> None:
        self._stages = stages
        self._reader = reader
        self._writer = writer
        self._counters = counters
        self._later = later
        self._rewriter = rewriter
        self._pieces: Iterator[bytes] | None = None
        self._first: bytes | None = b""
        self._unread = b""
        self._decoded = False
        self._broken = False
        self._untouched = False
        self._finishing = 0
        self.at_once = False
        self.waiting: Deferred[Any] | None = None

    @property
    def failed(self) -> bool:
        """Not all that should have been done was done."""
        return self._broken or self._untouched or any(stage.failed for stage in self._stages)

    @property
    def marks(self) -> list[tuple[int, int, int]] | None:
        """See :class:`lbarray.rewrite.memo.Source`."""
        return self._rewriter.marks if self._rewriter is not None else None

    @marks.setter
    def marks(self, marks: list[tuple[int, int, int]] | None) -> None:
        if self._rewriter is not None:
            self._rewriter.marks = marks

    def tally(self) -> int:
        """See :class:`lbarray.rewrite.memo.Source`."""
        return self._rewriter.rewritten if self._rewriter is not None else 0

    def _count(self) -> None:
        rewriter = self._rewriter
        if rewriter is None:
            return
        for name, label, amount in (
            ("rewrite_urls", "", rewriter.rewritten),
            ("rewrite_tags_left", "tag_too_long", getattr(rewriter, "long_tags", 0)),
            ("rewrite_tags_left", "integrity", getattr(rewriter, "unsigned", 0)),
            ("rewrite_left", rewriter.left, 1 if rewriter.left else 0),
        ):
            if amount:
                self._counters.add(name, label, amount)

    def feed(self, data: bytes) -> bytes:
        """Content in, content out."""
        if self._untouched:
            return data
        if self._broken:
            return b""
        pieces, self._pieces = self._pieces, None
        if self._reader is None or self._writer is None:
            if pieces is None and len(data) <= _SLICE:
                return self._through(data)
            return b"".join(self._worked_on(pieces or _sliced(data)))
        self._unread += data if not self._decoded else b""
        out: list[bytes] = []
        try:
            out.extend(self._worked_on(pieces if pieces is not None else self._reader.decode(data)))
        except BrokenCoding:
            self._counters.add("rewrite_bail_out", "coding")
            if not self._decoded:
                # Nothing has left: the client gets what the back end sent, and may make sense of it.
                self._untouched = True
                return self._unread
            # What was readable has left; the rest has no meaning. The client sees an end that is too early.
            self._broken = True
            return b"".join(out)
        if not self._decoded:
            if len(self._unread) > _LONGEST_CODING_HEAD:
                self._counters.add("rewrite_bail_out", "coding")
                self._untouched = True
                return self._unread
            return b""
        self._unread = b""
        return b"".join(out)

    def _worked_on(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What becomes of these pieces; when it is much, of some of them only, and the others wait for another turn."""
        writer = self._writer
        done = 0
        for piece in pieces:
            if not piece:
                continue
            self._decoded = True
            done += len(piece)
            out = self._through(piece)
            yield writer.code(out) if writer is not None else out
            if done >= _SLICE:
                done = 0
                if writer is not None:
                    yield writer.flush()
                if self._later is not None and not self.at_once:
                    self._pieces = pieces
                    self._wait_for_turn()
                    return
        if writer is not None and self._decoded:
            # The back end has sent so much and perhaps waits with the rest: the client is to see it.
            yield writer.flush()

    def _wait_for_turn(self) -> None:
        waiting = self.waiting = Deferred()

        def turn() -> None:
            self.waiting = None
            if not waiting.called:
                waiting.callback(None)

        assert self._later is not None
        self._later(turn)

    def _through(self, data: bytes) -> bytes:
        if self._first is not None:
            # One octet alone does not tell yet whether it begins a byte order mark.
            data = self._first + data
            if len(data) < 2:
                self._first = data
                return b""
            self._first = None
            if data.startswith(WIDE_MARKS):
                self._counters.add("rewrite_left", "charset")
                self._stages = ()
        for stage in self._stages:
            data = stage.feed(data)
        return data

    def finish(self) -> bytes:
        """The last content; called again after ``waiting``."""
        if self._untouched or self._broken:
            self._count()
            return b""
        rest = b""
        if not self._finishing and self._first:
            rest, self._first = self._first, None
            for stage in self._stages:
                rest = stage.feed(rest)
        while self._finishing < len(self._stages):
            stage = self._stages[self._finishing]
            last = stage.finish()
            if stage.waiting is not None:
                self.waiting = stage.waiting
                stage.waiting.addBoth(self._stage_done)
                return self._coded(rest)
            self._finishing += 1
            for following in self._stages[self._finishing :]:
                last = following.feed(last) if last else b""
            rest += last
        self._count()
        if self._reader is None or self._writer is None:
            return rest
        if not self._reader.ended and not self._decoded:
            return self._unread
        coded = self._writer.code(rest)
        if not self._reader.ended:
            # Cut short by the back end: no proper end of ours may hide that from the client.
            self._counters.add("rewrite_bail_out", "cut_short")
            return coded + self._writer.flush()
        return coded + self._writer.finish()

    def _stage_done(self, result: Any) -> Any:
        self.waiting = None
        return result

    def _coded(self, data: bytes) -> bytes:
        if self._writer is None:
            return data
        return self._writer.code(data) + self._writer.flush() if data else b""


def _sliced(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _SLICE] for at in range(0, len(data), _SLICE))
