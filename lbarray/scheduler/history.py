"""What nodes learn of the rows' past from each other: who had them before, and may hold connections in them.

The table follows from who is in now; its history does not. A node that did not know it would end the search for the
worker that holds a connection (second chance). So one that joins asks one that takes clients already, before it takes
any itself. And nodes that a fault of the network has kept apart ask each other when they meet again: meanwhile each
part had rows of its own, and has taken clients in them.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from lbarray.errors import ArrayError, BadInput
from lbarray.telemetry.counters import Counters
from lbarray.values import NodeReport

__all__ = ["PIECE", "HistoryService"]

#: Octets of compressed rows in one answer, and how many answers are waited for at a time.
PIECE = 1100
ABREAST = 8
#: Snapshots that are kept for those who are in the middle of one.
KEEP = 4
#: Nodes that are asked, one after the other.
TRIES = 3
#: Of nodes that were apart: so many are asked at most, and so many different histories are enough.
ASKED = 8
#: More than any table has, compressed.
LONGEST = 8 << 20
_WHAT = "rows"
#: Which snapshot, by its checksum (0: the newest), and which piece of it. The answer begins with snapshot and length.
_QUESTION = struct.Struct("!II")
_ANSWER = struct.Struct("!II")


class BadRows(BadInput):
    """What another node told us cannot be the rows of our table."""

    reason = "bad_rows"


class HistoryService(Service):
    """Tells others the rows, learns them once after the start, and joins them with ours after a parting.

    :param members: an :class:`lbarray.interfaces.IMembershipSource`.
    :param requests: asks other nodes and answers them: an ``ArrayRequests`` of the membership.
    :param rows: ours now.
    :param learn: what another node's rows are; raises ``ValueError`` when they cannot be those of our table.
    :param meet: nodes are heard that have served apart from this one; called at once.
    :param join: what one of them told of its rows; raises as ``learn``.
    :param met: one of them hears this node, too, or does not answer.
    :param changed: :attr:`pending` is another now.
    :ivar pending: an answer is on its way: whoever takes clients now would do so without the history.
    """

    log = Logger()

    def __init__(
        self,
        *,
        node_name: str,
        members: Any,
        requests: Any,
        rows: Callable[[], bytes],
        learn: Callable[[bytes], object],
        meet: Callable[[Sequence[NodeReport]], object],
        join: Callable[[bytes], object],
        met: Callable[[str], object],
        changed: Callable[[], None],
        counters: Counters,
    ) -> None:
        self.pending = False
        self._node_name = node_name
        self._members = members
        self._requests = requests
        self._rows = rows
        self._learn = learn
        self._meet = meet
        self._join = join
        self._met = met
        self._changed = changed
        self._counters = counters
        self._asked: set[str] = set()
        self._learnt = False
        self._served = False
        self._present: set[str] = set()
        self._apart: list[str] = []
        self._joining = False
        self._snapshots: OrderedDict[int, bytes] = OrderedDict()
        self._packed: tuple[bytes, int] = (b"", 0)
        self._unsubscribe: Callable[[], None] = lambda: None
        requests.serve(_WHAT, self._answer)

    def startService(self) -> None:
        super().startService()
        self._unsubscribe = self._members.subscribe(self._heard)

    def stopService(self) -> None:
        super().stopService()
        self._unsubscribe()
        self._unsubscribe = lambda: None
        self.pending = False
        self._apart.clear()

    # Telling

    def _answer(self, sender: str, payload: bytes) -> bytes:
        if len(payload) != _QUESTION.size:
            raise BadRows("a question that is cut off")
        wanted, piece = _QUESTION.unpack(payload)
        number = wanted or self._snapshot()
        packed = self._snapshots.get(number)
        if packed is None:
            raise BadRows("these rows are not kept any more: ask for the newest")
        return _ANSWER.pack(number, len(packed)) + packed[piece * PIECE : (piece + 1) * PIECE]

    def _snapshot(self) -> int:
        rows = self._rows()
        if rows != self._packed[0]:
            packed = zlib.compress(_little(rows), 1)
            number = zlib.crc32(packed) or 1
            self._packed = (rows, number)
            self._snapshots[number] = packed
            if len(self._snapshots) > KEEP:
                self._snapshots.popitem(last=False)
        return self._packed[1]

    # Learning

    def _heard(self, members: Sequence[NodeReport]) -> None:
        """The first one that takes clients is asked; another one if it does not say. Who takes clients when it is first
        heard by a node that does so itself has taken them apart from it."""
        serving = [report for report in members if report.accepting]
        others = [report for report in serving if report.name != self._node_name]
        came = [report for report in others if report.name not in self._present]
        self._present = {report.name for report in members}
        if self._served:
            if came:
                self._meet_again(came)
            return
        self._served = len(others) < len(serving)
        names = [report.name for report in others if report.name not in self._asked]
        if not self._learnt and not self.pending and names and len(self._asked) < TRIES:
            self._asked.add(names[0])
            self.pending = True
            Deferred.fromCoroutine(self._learn_from(names[0])).addErrback(self._stumbled)

    async def _learn_from(self, name: str) -> None:
        rows = await self._ask(name)
        if rows is None or not self._take(name, rows, self._learn):
            self._end()
            self._heard(self._members.members())
            return
        self._learnt = True
        self._end()

    def _meet_again(self, came: Sequence[NodeReport]) -> None:
        self._meet(came)
        self._apart += [report.name for report in came if report.name not in self._apart]
        if not self._joining:
            self._joining = True
            Deferred.fromCoroutine(self._join_all()).addErrback(self._stumbled)

    async def _join_all(self) -> None:
        """Those who were together remember the same, mostly: what was told once is not fetched again."""
        told: set[int] = set()
        asked = 0
        while self._apart and asked < ASKED and len(told) < TRIES:
            name, asked = self._apart.pop(0), asked + 1
            rows = await self._ask(name, told)
            if rows:
                self._take(name, rows, self._join)
            self._met(name)
        for name in self._apart:
            self._met(name)
        self._apart.clear()
        self._joining = False

    def _take(self, name: str, packed: bytes, take: Callable[[bytes], object]) -> bool:
        try:
            take(_little(zlib.decompressobj().decompress(packed, LONGEST)))
        except (ValueError, zlib.error) as error:
            self._unknown(name, error)
            return False
        self._counters.add("history_learnt")
        self.log.info("history of the rows, from node {name}: {octets} octets", name=name, octets=len(packed))
        return True

    def _unknown(self, name: str, why: object) -> None:
        self._counters.add("history_unknown")
        self.log.warn("node {name} does not tell the history of the rows: {why}", name=name, why=why)

    async def _ask(self, name: str, told: set[int] | None = None) -> bytes | None:
        """One node's rows, compressed; ``None`` when it does not tell, nothing when their number is in ``told``."""
        try:
            return await self._fetch(name, set() if told is None else told)
        except (ArrayError, FirstError, ValueError) as error:
            self._unknown(name, error.subFailure.value if isinstance(error, FirstError) else error)
            return None

    async def _fetch(self, name: str, told: set[int]) -> bytes:
        answer = await self._requests.ask(name, _WHAT, _QUESTION.pack(0, 0))
        if len(answer) < _ANSWER.size:
            raise BadRows("an answer that is cut off")
        number, length = _ANSWER.unpack_from(answer)
        if length > LONGEST:
            raise BadRows(f"{length} octets of rows")
        if number in told:
            return b""
        told.add(number)
        pieces = [answer[_ANSWER.size :]]
        count = -(-length // PIECE)
        for first in range(1, count, ABREAST):
            places = range(first, min(count, first + ABREAST))
            asked = [self._requests.ask(name, _WHAT, _QUESTION.pack(number, place)) for place in places]
            pieces += [answer[_ANSWER.size :] for answer in await gatherResults(asked, consumeErrors=True)]
        packed = b"".join(pieces)
        if len(packed) != length:
            raise BadRows(f"{len(packed)} octets where {length} were promised")
        return packed

    def _stumbled(self, failure: Failure) -> None:
        self.log.failure("learning the history of the rows", failure)
        self._joining = False
        self._end()

    def _end(self) -> None:
        self.pending = False
        if self.running:
            self._changed()


def _little(rows: bytes) -> bytes:
    """Rows in this machine's order of octets from little-endian, or the other way."""
    if sys.byteorder == "little":
        return rows
    numbers = array("H", rows)
    numbers.byteswap()
    return numbers.tobytes()
