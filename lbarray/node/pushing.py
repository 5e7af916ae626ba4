"""One configuration for the whole array: sent to every node, checked by all, then taken up by all, or by none.

It goes in pieces over the membership's requests, which are sealed with the array's key and done once however often
they arrive.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import typing
import zlib
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from lbarray.config.changes import Difference, differences
from lbarray.config.load import ConfigFile, load_file
from lbarray.console.actions import Refused
from lbarray.errors import ArrayError, SystemRefused

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["Pushing"]

#: Octets of a configuration that a node accepts, and of the piece of it that fits into one request.
MAX_OCTETS = 1 << 20
PIECE = 1000
_PIECE, _CHECK, _APPLY, _UNDO = (
    "configuration-piece",
    "configuration-check",
    "configuration-apply",
    "configuration-undo",
)
_ID = 8


class NotPushed(Refused):
    """Some node would not have it; every node runs what it ran before."""

    reason = "not_pushed"


@attrs.define
class _Candidate:
    """A configuration that is on its way."""

    number: bytes
    pieces: dict[int, bytes]
    count: int
    stage: bool = False
    file: ConfigFile | None = None
    base: str = ""


class Pushing:
    """Sends configurations to the other nodes, and takes what they send.

    One push at a time: a newer one displaces an older one that was not applied yet.
    """

    log = Logger()

    def __init__(self, node: NodeService) -> None:
        self._node = node
        self._candidate: _Candidate | None = None
        self._undo: bytes | None = None
        if node.membership is not None:
            requests = node.membership.requests
            for what, handler in (
                (_PIECE, self._piece), (_CHECK, self._check), (_APPLY, self._apply), (_UNDO, self._undo_apply)
            ):  # fmt: skip
                requests.serve(what, handler)

    # Sending

    def push(self, text: str, *, stage: bool, absent_ok: bool) -> Deferred[dict[str, object]]:
        """Give all nodes this configuration.

        :param stage: only write it to their files, for the next restart.
        :param absent_ok: nodes that are missing need not have it.
        """
        return Deferred.fromCoroutine(self._push(text.encode(), stage, absent_ok))

    def roll_back(self, *, absent_ok: bool) -> Deferred[dict[str, object]]:
        """Give all nodes the configuration that this one ran before the last push.

        :raises Refused: it knows of none.
        """
        path = self._file.path
        try:
            octets = _previous(path).read_bytes()
        except OSError as error:
            raise Refused(f"there is nothing to roll back to: {_previous(path)}: {error.strerror}") from None
        return Deferred.fromCoroutine(self._push(octets, False, absent_ok))

    @property
    def _file(self) -> ConfigFile:
        file = self._node.configuring.file
        if file is None:
            raise Refused("this node was started without a configuration file")
        return file

    async def _push(self, octets: bytes, stage: bool, absent_ok: bool) -> dict[str, object]:
        others = self._others(absent_ok)
        # Here first: mistakes that every node would find are found without asking anybody.
        new, found = self._judge(octets, stage)
        number = secrets.token_bytes(_ID)
        packed = zlib.compress(octets, 9)
        pieces = [packed[at : at + PIECE] for at in range(0, len(packed), PIECE)]
        for place, piece in enumerate(pieces):
            head = number + place.to_bytes(2, "big") + len(pieces).to_bytes(2, "big")
            await self._all(others, _PIECE, head + piece)
        await self._all(others, _CHECK, number + bytes([stage]))
        try:
            await self._all(others, _APPLY, number)
            self._take(new, stage)
        except ArrayError as error:
            await self._take_back(others, number)
            raise NotPushed(f"taken back everywhere: {error}") from None
        return self._said(new, found, others, stage)

    async def _take_back(self, others: Iterable[str], number: bytes) -> None:
        with contextlib.suppress(ArrayError):  # each node logs why it could not
            await self._all(others, _UNDO, number)

    def _others(self, absent_ok: bool) -> list[str]:
        """:raises Refused: some are missing."""
        membership = self._node.membership
        if membership is None:
            return []
        there = {report.name for report in membership.members()}
        missing = [name for name in self._node.config.array.nodes if name not in there]
        if missing and not absent_ok:
            raise Refused(
                f"nothing was changed: missing from the array: {', '.join(missing)}. Start them first, or push with "
                "--absent-ok and give them the file before they start"
            )
        return sorted(there - {self._node.node_name})

    async def _all(self, names: Iterable[str], what: str, payload: bytes) -> None:
        """Ask all of them at once.

        :raises NotPushed: what each of them said that would not.
        """
        membership = self._node.membership
        asked = list(names)
        if membership is None or not asked:
            return
        answers: Awaitable[Any] = DeferredList(
            [membership.requests.ask(name, what, payload) for name in asked], consumeErrors=True
        )
        said = []
        for name, (good, result) in zip(asked, await answers, strict=True):
            if not good:
                if not result.check(ArrayError):
                    result.raiseException()
                said.append(f"node {name}: {result.value}")
        if said:
            raise NotPushed("nothing was changed: " + "; ".join(said))

    def _said(self, new: ConfigFile, found: list[Difference], others: list[str], stage: bool) -> dict[str, object]:
        nodes = [self._node.node_name, *others]
        does = "have it in their files, to run it after a restart" if stage else "runs it" if not others else "run it"
        listed = "".join(f"\n  {difference}" for difference in found) or " nothing differs"
        return {
            "version": new.version,
            "nodes": nodes,
            "staged": stage,
            "differences": [attrs.asdict(difference) for difference in found],
            "said": f"configuration {new.version}: node{'s' if others else ''} {', '.join(nodes)} {does}:{listed}",
        }

    # Judging and taking up, here

    def _judge(self, octets: bytes, stage: bool) -> tuple[ConfigFile, list[Difference]]:
        """:raises ArrayError: it will not do on this machine."""
        if len(octets) > MAX_OCTETS:
            raise Refused(f"a configuration of {len(octets)} octets; accepted: up to {MAX_OCTETS}")
        file = self._file
        new = load_file(file.path, octets)
        found = differences(self._node.config, new.config)
        if not stage:
            self._node.configuring.check_live(found, new.config)
        return new, found

    def _take(self, new: ConfigFile, stage: bool) -> None:
        """:raises ArrayError: it could not be; the file is as it was."""
        file = self._file
        _write(_previous(file.path), file.octets)
        before = file.path.read_bytes()
        _write(file.path, new.octets)
        if stage:
            self.log.info("configuration {version} is in {path} for the next start", version=new.version, path=new.path)
            return
        try:
            self._node.configuring.take_up(new)
        except ArrayError:
            _write(file.path, before)
            raise

    # What other nodes ask

    def _piece(self, sender: str, payload: bytes) -> bytes:
        number, place = payload[:_ID], int.from_bytes(payload[_ID : _ID + 2], "big")
        count, piece = int.from_bytes(payload[_ID + 2 : _ID + 4], "big"), payload[_ID + 4 :]
        candidate = self._candidate
        if candidate is None or candidate.number != number:
            candidate = self._candidate = _Candidate(number, {}, count)
        if count != candidate.count or place >= count or count * PIECE > 2 * MAX_OCTETS:
            raise Refused("pieces that do not fit together")
        candidate.pieces[place] = piece
        return b""

    def _found(self, number: bytes) -> _Candidate:
        candidate = self._candidate
        if candidate is None or candidate.number != number:
            raise Refused("another configuration was pushed meanwhile")
        return candidate

    def _check(self, sender: str, payload: bytes) -> bytes:
        candidate = self._found(payload[:_ID])
        candidate.stage = payload[_ID:] == b"\1"
        if len(candidate.pieces) != candidate.count:
            raise Refused("pieces of the configuration are missing")
        packed = b"".join(candidate.pieces[place] for place in range(candidate.count))
        unpacking = zlib.decompressobj()
        try:
            octets = unpacking.decompress(packed, MAX_OCTETS + 1)
        except zlib.error as error:
            raise Refused(f"the configuration arrived broken: {error}") from None
        candidate.file, _ = self._judge(octets, candidate.stage)
        candidate.base = self._file.version
        return b""

    def _apply(self, sender: str, payload: bytes) -> bytes:
        candidate = self._found(payload)
        if candidate.file is None or candidate.base != self._file.version:
            raise Refused("the configuration changed between check and application")
        self.log.info("node {sender} pushes configuration {version}", sender=sender, version=candidate.file.version)
        self._undo = self._file.octets
        self._take(candidate.file, candidate.stage)
        return b""

    def _undo_apply(self, sender: str, payload: bytes) -> bytes:
        candidate, before = self._found(payload), self._undo
        self._candidate = self._undo = None
        if before is not None:
            self.log.warn("node {sender} takes its configuration back", sender=sender)
            old, _ = self._judge(before, candidate.stage)
            self._take(old, candidate.stage)
        return b""


def _previous(path: Path) -> Path:
    """Where the configuration before the last push is kept."""
    return path.with_name(path.name + ".previous")


def _write(path: Path, octets: bytes) -> None:
    """The whole file or, when the machine stops in between, the whole file before.

    :raises SystemRefused: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("wb") as out:
            if path.exists():
                os.fchmod(out.fileno(), path.stat().st_mode & 0o777)
            out.write(octets)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        raise SystemRefused(
            f"write the configuration {path}",
            errno=error.errno or 0,
            advice=f"its folder must be writable by the user that lbarray runs as: {path.parent}",
        ) from None
