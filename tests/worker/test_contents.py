"""Content on its way through filters, some of which take their time."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.contents import FilteredContent


class Sink:
    """Remembers what it is told, in order."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def content(self, data: bytes) -> None:
        self.told.append(data)

    def content_end(self) -> None:
        self.told.append("end")

    def flush(self) -> None:
        pass

    def content_paused(self, paused: bool) -> None:
        self.told.append("paused" if paused else "resumed")


class Upper:
    """Capitals, at once."""

    waiting = None

    def feed(self, data: bytes) -> bytes:
        return data.upper()

    def finish(self) -> bytes:
        return b"!"


class Slow:
    """Gives nothing before its work is done, then all of it."""

    def __init__(self, *, at_end: bool = False) -> None:
        self.waiting: Deferred[None] | None = None
        self._held = b""
        self._at_end = at_end
        self.cancelled = 0

    def _start(self) -> None:
        self.waiting = Deferred(lambda _: setattr(self, "cancelled", self.cancelled + 1))

    def done(self) -> None:
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        waiting.callback(None)

    def feed(self, data: bytes) -> bytes:
        self._held += data
        if data and not self._at_end:
            self._start()
            return b""
        return b"" if self._at_end else self._give()

    def finish(self) -> bytes:
        if self._at_end:
            self._at_end = False
            self._start()
            return b""
        return self._give()

    def _give(self) -> bytes:
        held, self._held = self._held, b""
        return held


class FilteredContentTests(SynchronousTestCase):
    """One response."""

    def test_in_order(self) -> None:
        """Each filter sees what the one before gave, its last content too."""
        sink = Sink()
        content = FilteredContent([Upper(), Upper()], sink)
        content.feed(b"a")
        content.end()
        self.assertEqual(sink.told, [b"A", b"!", b"!", "end"])

    def test_wait_in_the_middle(self) -> None:
        """While a filter works the source pauses; what came meanwhile follows, and nothing is lost."""
        sink, slow = Sink(), Slow()
        content = FilteredContent([slow, Upper()], sink)
        content.feed(b"a")
        content.feed(b"b")
        content.end()
        self.assertEqual(sink.told, ["paused"])
        slow.done()
        self.assertEqual(sink.told[:2], ["paused", b"A"])
        slow.done()
        self.assertEqual([told for told in sink.told if told not in ("paused", "resumed")], [b"A", b"B", b"!", "end"])
        self.assertEqual([told for told in sink.told if told in ("paused", "resumed")][-1], "resumed")

    def test_wait_at_the_end(self) -> None:
        """The end comes when the last filter has done its work."""
        sink, slow = Sink(), Slow(at_end=True)
        content = FilteredContent([Upper(), slow], sink)
        content.feed(b"a")
        content.end()
        self.assertEqual(sink.told, ["paused"])
        slow.done()
        self.assertEqual(sink.told, ["paused", b"A!", "end", "resumed"])

    def test_dropped(self) -> None:
        """When the client is gone the work is cancelled and nothing is told any more."""
        sink, slow = Sink(), Slow()
        content = FilteredContent([slow], sink)
        content.feed(b"a")
        content.drop()
        self.assertEqual(slow.cancelled, 1)
        self.assertEqual(sink.told, ["paused"])

    def test_held(self) -> None:
        """While the client cannot take more, nothing more is asked of a filter that has it; then it goes on."""
        sink, slow = Sink(), Slow()
        content = FilteredContent([slow], sink)
        content.feed(b"a")
        content.hold(True)
        slow.done()
        self.assertEqual(sink.told, ["paused"])
        content.hold(False)
        self.assertEqual(sink.told, ["paused", b"a", "resumed"])
