"""Recent results: a page that comes again, octet for octet, leaves without being read again.

A result is found by where it comes from, and used as far as what comes really is what came then: compared, not hashed.
When it turns out to be another page, the rewriter is given what was the same and goes on from there; the client has had
nothing that the rewriter would not have given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import attrs
from zope.interface import implementer

from lbarray.interfaces import IBodyFilter
from lbarray.telemetry.counters import Counters

__all__ = ["Memo", "Recorded", "Remembering", "Source"]

#: What a result's lists take for each entry, about.
_ENTRY_OCTETS = 150
#: After so many other pages at the same place in a row, results are kept of one in so many only.
_PATIENCE = 2
_ONE_IN = 16


class Source(Protocol):
    """What makes the results: the rewriter, with coding and all."""

    marks: list[tuple[int, int, int]] | None
    waiting: Any
    at_once: bool

    def feed(self, data: bytes) -> bytes:
        """Content in, content out."""

    def finish(self) -> bytes:
        """The last content."""

    def tally(self) -> int:
        """How many URLs were changed."""

    @property
    def failed(self) -> bool:
        """It did not do all that it should: not a result to keep."""


@attrs.frozen(eq=False)
class Recorded:
    """One result.

    :ivar starts: where what was changed begins, in what came; ``ends``: where it ends; ``out_ends``: where that is in
        what left. Between them octets leave as they came. Coded content has one entry for each time something left.
    """

    came: bytes
    left: bytes
    starts: list[int]
    ends: list[int]
    out_ends: list[int]
    coded: bool
    urls: int

    @property
    def size(self) -> int:
        """Octets of memory, about."""
        return len(self.came) + len(self.left) + _ENTRY_OCTETS * len(self.ends) + 500

    def settled(self, reached: int) -> tuple[int, int]:
        """What may leave when so much has come and was the same: up to where in what came, and in what left."""
        place = bisect_right(self.ends, reached)
        end, out = (self.ends[place - 1], self.out_ends[place - 1]) if place else (0, 0)
        if self.coded:
            return end, out
        stop = min(reached, self.starts[place]) if place < len(self.starts) else reached
        return stop, out + stop - end


class Memo:
    """Results, the least recently used go first.

    :param limit: octets of memory; as many again may be in hand, of results that are not complete.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._results: OrderedDict[Hashable, Recorded] = OrderedDict()
        self._others: OrderedDict[Hashable, int] = OrderedDict()
        self.octets = 0
        self.in_hand = 0

    def has_room(self, octets: int) -> bool:
        """A page of so much content may be kept, and what is in hand is not too much."""
        return octets <= self._limit // 8 and self.in_hand <= self._limit

    def find(self, key: Hashable) -> Recorded | None:
        """The last result from there."""
        found = self._results.get(key)
        if found is not None:
            self._results.move_to_end(key)
        return found

    def wants(self, key: Hashable) -> bool:
        """Whether the next result from there is worth keeping: not where every page is another."""
        count = self._others.get(key, 0)
        return count <= _PATIENCE or count % _ONE_IN == 0

    def hit(self, key: Hashable) -> None:
        """It was the same page."""
        self._others.pop(key, None)

    def missed(self, key: Hashable) -> None:
        """It was another one, or the first."""
        self._others[key] = self._others.get(key, 0) + 1
        self._others.move_to_end(key)
        if len(self._others) > 4096:
            self._others.popitem(last=False)

    def keep(self, key: Hashable, result: Recorded) -> None:
        """Remember; in place of the one before."""
        before = self._results.pop(key, None)
        if before is not None:
            self.octets -= before.size
        if result.size > self._limit:
            return
        self._results[key] = result
        self.octets += result.size
        while self.octets > self._limit:
            _, gone = self._results.popitem(last=False)
            self.octets -= gone.size

    def clear(self) -> None:
        """Forget everything."""
        self._results.clear()
        self._others.clear()
        self.octets = 0


class _Recording:
    """A result that is not complete. What it holds counts with its memo, also when its response is given up."""

    def __init__(self, memo: Memo) -> None:
        self._memo = memo
        self._came: list[bytes] = []
        self._left: list[bytes] = []
        self._came_octets = self._left_octets = 0
        self._steps: list[tuple[int, int, int]] = []

    def __del__(self) -> None:
        self._memo.in_hand -= self._came_octets + self._left_octets

    def add(self, came: bytes, left: bytes) -> bool:
        """Some more of it; true as long as there is room for it."""
        self._came.append(came)
        self._left.append(left)
        self._steps.append((self._came_octets, self._came_octets + len(came), self._left_octets + len(left)))
        self._came_octets += len(came)
        self._left_octets += len(left)
        self._memo.in_hand += len(came) + len(left)
        return self._memo.has_room(self._came_octets)

    def result(self, last: bytes, marks: Sequence[tuple[int, int, int]] | None, urls: int) -> Recorded:
        """All of it. ``marks``: of the source, where it has some; else each time something left is one."""
        steps = self._steps if marks is None else marks
        return Recorded(
            came=b"".join(self._came),
            left=b"".join(self._left) + last,
            starts=[step[0] for step in steps],
            ends=[step[1] for step in steps],
            out_ends=[step[2] for step in steps],
            coded=marks is None,
            urls=urls,
        )


@implementer(IBodyFilter)
class Remembering:
    """The content of one response: from a result as long as it is the same, else from a source that is made for it.

    :param key: where it comes from, and by which rules.
    :param make: a fresh source.
    :param coded: what leaves is not, piece by piece, what came with changes in it.
    """

    def __init__(
        self, memo: Memo, key: Hashable, make: Callable[[], Source], *, coded: bool, counters: Counters
    ) -> None:
        self._counters = counters
        self._memo = memo
        self._key = key
        self._make = make
        self._coded = coded
        self._result = memo.find(key)
        self._reached = 0
        self._given = 0
        self._source: Source | None = None
        self._recording: _Recording | None = None
        self._owed = b""
        self._raw = b""
        self._untouched = False

    @property
    def waiting(self) -> Any:
        """Of the source, while there is one."""
        return self._source.waiting if self._source is not None else None

    def feed(self, data: bytes) -> bytes:
        """Content in, content out."""
        result = self._result
        if result is not None:
            reached = self._reached + len(data)
            if result.came.startswith(data, self._reached):
                came, out = result.settled(reached)
                if not self._coded or came == reached:
                    self._reached = reached
                    given, self._given = self._given, out
                    return result.left[given:out]
            return self._another(data)
        if self._source is None:
            self._begin()
        return self._live(data)

    def _begin(self) -> Source:
        source = self._source = self._make()
        self._memo.missed(self._key)
        self._counters.add("rewrite_memo", "miss")
        if self._memo.wants(self._key):
            self._recording = _Recording(self._memo)
            if not self._coded:
                source.marks = []
        return source

    def _another(self, data: bytes) -> bytes:
        """It is another page from here on: the source catches up, and goes on."""
        result, self._result = self._result, None
        assert result is not None
        source = self._begin()
        same, given = self._reached, self._given
        source.at_once = True  # in the same slices, but now: what is the same has left already
        out = b""
        if self._coded:
            begin = 0
            for end in result.ends:  # in the same pieces, or the coding would be another
                if end > same:
                    break
                out += self._live(result.came[begin:end])
                begin = end
            out += self._live(result.came[begin:same] + data)
            source.at_once = False
            if not out.startswith(result.left[:given]):
                raise RuntimeError("a coding gave something else for the same content")
            return out[given:]
        settled, _ = result.settled(same)
        out = self._live(result.came[:same] + data) if same else self._live(data)
        source.at_once = False
        self._owed = result.left[:given]
        self._raw = result.came[settled:same]
        return self._settle(out, data)

    def _settle(self, out: bytes, data: bytes) -> bytes:
        """The client has had more than the source has given for the same: the rest of an unfinished tag."""
        self._raw += data
        owed = self._owed
        if out.startswith(owed):
            self._owed = self._raw = b""
            return out[len(owed) :]
        if owed.startswith(out):
            self._owed = owed[len(out) :]
            return b""
        # What left already would be changed now that the whole tag is known. As it came is right as well.
        self._untouched = True
        self._recording = None
        return self._raw

    def _live(self, data: bytes) -> bytes:
        if self._untouched:
            return data
        source = self._source
        assert source is not None
        out = source.feed(data)
        if self._recording is not None and not self._recording.add(data, out):
            self._recording = None
            source.marks = None
        if self._owed:
            return self._settle(out, data)
        return out

    def finish(self) -> bytes:
        """The last content."""
        result = self._result
        if result is not None:
            if self._reached == len(result.came):
                self._memo.hit(self._key)
                self._counters.add("rewrite_memo", "hit")
                self._counters.add("rewrite_urls", "", result.urls)
                return result.left[self._given :]
            rest = self._another(b"")
        else:
            rest = b""
        if self._source is None:
            self._begin()
        assert self._source is not None
        last = self._source.finish()
        if self._untouched:
            return rest
        if self._owed:
            return rest + self._settle(last, b"")
        if self._recording is not None and not self._source.failed:
            marks = None if self._coded else self._source.marks or []
            self._memo.keep(self._key, self._recording.result(last, marks, self._source.tally()))
        return rest + last
