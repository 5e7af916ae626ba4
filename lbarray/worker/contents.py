"""The content of one response on its way through its filters, in their order, and at their pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["ContentSink", "FilteredContent"]


class ContentSink(Protocol):
    """Where content goes when every filter has seen it."""

    def content(self, data: bytes) -> None:
        """Some of it; never empty."""

    def content_end(self) -> None:
        """All of it has been told."""

    def flush(self) -> None:
        """What has been told so far may go on its way: more of it takes a while."""

    def content_paused(self, paused: bool) -> None:
        """A filter has work in hand: no more is wanted before that is done; or it is done."""


class _Stage:
    """One filter, and what came for it while it had work in hand."""

    __slots__ = ("ended", "ending", "filter", "queue", "waits")

    def __init__(self, body_filter: Any) -> None:
        self.filter = body_filter
        self.queue: deque[bytes] = deque()
        self.waits = False
        self.ended = False
        self.ending = False


class FilteredContent:
    """Feeds filters (:class:`lbarray.interfaces.IBodyFilter`), the first is nearest to the back end.

    :ivar waits: some filter has work in hand; what is fed meanwhile is kept, so feeding should pause.
    """

    def __init__(self, filters: Sequence[Any], sink: ContentSink) -> None:
        self._stages = [_Stage(body_filter) for body_filter in filters]
        self._sink: ContentSink | None = sink
        self._held = False
        self._ready: list[int] = []
        self.waits = 0

    def feed(self, data: bytes) -> None:
        """More of it from the back end."""
        self._feed(0, data)

    def end(self) -> None:
        """That was all of it; :meth:`ContentSink.content_end` follows, perhaps later."""
        self._end(0)

    def hold(self, held: bool) -> None:
        """The sink cannot take more, or can again: what a filter makes by and by is not asked for meanwhile."""
        self._held = held
        while self._ready and not self._held:
            self._again(self._ready.pop(0))

    def drop(self) -> None:
        """Nobody wants it any more: the sink hears nothing from now on."""
        self._sink = None
        for stage in self._stages:
            if stage.waits:
                stage.filter.waiting.cancel()

    def _feed(self, place: int, data: bytes) -> None:
        if not data or self._sink is None:
            return
        if place == len(self._stages):
            self._sink.content(data)
            return
        stage = self._stages[place]
        if stage.waits:
            stage.queue.append(data)
            return
        self._feed(place + 1, stage.filter.feed(data))
        if stage.filter.waiting is not None:
            self._wait(place)

    def _end(self, place: int) -> None:
        if self._sink is None:
            return
        if place == len(self._stages):
            self._sink.content_end()
            return
        stage = self._stages[place]
        stage.ended = True
        if not stage.waits:
            self._finish(place)

    def _finish(self, place: int) -> None:
        stage = self._stages[place]
        stage.ending = True
        self._feed(place + 1, stage.filter.finish())
        if stage.filter.waiting is not None:
            self._wait(place)
        else:
            self._end(place + 1)

    def _wait(self, place: int) -> None:
        if self._sink is None:
            return
        self._stages[place].waits = True
        self.waits += 1
        if self.waits == 1:
            self._sink.content_paused(True)
        self._stages[place].filter.waiting.addBoth(lambda _: self._again(place))

    def _again(self, place: int) -> None:
        stage = self._stages[place]
        if self._held and not stage.ending and self._sink is not None:
            self._ready.append(place)
            return
        stage.waits = False
        self.waits -= 1
        if self._sink is None:
            return
        if stage.ending:
            self._finish(place)
        else:
            self._feed(place + 1, stage.filter.feed(b""))
            if stage.filter.waiting is not None:
                self._wait(place)
            while stage.queue and not stage.waits:
                self._feed(place, stage.queue.popleft())
            if stage.ended and not stage.waits:
                self._finish(place)
        if self._sink is not None:
            if self.waits:
                self._sink.flush()
            else:
                self._sink.content_paused(False)
