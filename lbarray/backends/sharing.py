"""What nodes and processes tell each other: learnt sessions, hash groups in use, what an operator changed."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

from lbarray.backends.persistence.groups import GroupPersistence
from lbarray.backends.persistence.learnt import KEY_OCTETS, LearntPersistence
from lbarray.backends.pool import Pool
from lbarray.errors import Unreadable

__all__ = ["Sharing", "entries_of", "payloads"]

TOPIC: Final = "back-ends"
#: First octet of a payload.
ENTRIES, ASK, OFFER, SEND, GROUPS, CHANGE = range(1, 7)
TAG_OCTETS: Final = 4
ENTRY_OCTETS: Final = KEY_OCTETS + TAG_OCTETS
ENTRIES_PER_PAYLOAD: Final = (1200 - 1 - TAG_OCTETS) // ENTRY_OCTETS

#: Entries are gathered for so long: what a node that is killed has not told yet is lost.
GATHER_S = 0.02
#: A node that has just come asks again after these times, until another one has offered what it knows.
ASK_AFTER_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
#: A table is sent in so many payloads per ``GATHER_S``: 100,000 sessions take about three seconds.
PAYLOADS_PER_STEP = 10
GROUPS_EVERY_S = 1.0
SNAPSHOT_ENTRIES = 1000
#: Changes are repeated after these times, and so many are remembered in order to do each once.
REPEAT_S = (0.1, 0.5)
CHANGES_REMEMBERED = 256


class BadSharing(Unreadable):
    """A payload of another version, or cut off."""

    reason = "bad_persistence"


def tag(name: str) -> bytes:
    """A pool's or a member's name in four octets."""
    return blake2b(name.encode(), digest_size=TAG_OCTETS).digest()


def payloads(pool: str, entries: list[tuple[bytes, str]]) -> Iterator[bytes]:
    """Sessions as payloads: ``1 | tag of the pool | (key, tag of the member) …``."""
    head = bytes((ENTRIES,)) + tag(pool)
    for start in range(0, len(entries), ENTRIES_PER_PAYLOAD):
        yield head + b"".join(key + tag(name) for key, name in entries[start : start + ENTRIES_PER_PAYLOAD])


def entries_of(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Key and tag of the member of each session in a payload.

    :raises BadSharing: it is cut off.
    """
    body = payload[1 + TAG_OCTETS :]
    if len(body) % ENTRY_OCTETS:
        raise BadSharing("length", f"{len(body)} octets of sessions")
    for at in range(0, len(body), ENTRY_OCTETS):
        yield body[at : at + KEY_OCTETS], body[at + KEY_OCTETS : at + ENTRY_OCTETS]


class Sharing:
    """Keeps the learnt tables of all nodes alike, as far as messages arrive.

    New sessions are told at once, in batches; a node that has just come is sent what another one knows. Nothing is
    acknowledged: a lost message costs a client its back end once, if it comes to another node before
    its session is told again.

    The processes of a node have tables of their own. They tell each other the same in plain values: what a worker
    process learns goes by ``tell`` to the node's process, which passes it on over the channel; what comes over
    the channel goes by ``tell`` to the worker processes.

    :param changed: called with what another node's operator changed, once for each change.
    :param tell: called with what the other processes of this node should :meth:`hear`.
    :ivar channel: an :class:`lbarray.interfaces.IArrayChannel`; worker processes have none, nor has a node alone.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        pools: Mapping[str, Pool],
        channel: Any = None,
        changed: Callable[[Mapping[str, Any]], None] = lambda change: None,
        tell: Callable[[dict[str, Any]], None] = lambda change: None,
    ) -> None:
        self.channel = channel
        self._changed = changed
        self._tell = tell
        self._changes: deque[str] = deque(maxlen=CHANGES_REMEMBERED)
        self._repeats: list[IDelayedCall] = []
        self._reactor = reactor
        self._pools = pools
        self._pending: dict[str, list[tuple[bytes, str]]] = {}
        self._call: IDelayedCall | None = None
        self._asking: IDelayedCall | None = None
        self._groups: IDelayedCall | None = None
        self._sending: dict[str, Iterator[bytes]] = {}
        self._asked = 0
        self._answered = False
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Tell and hear from now on."""
        self.attach()
        if self.channel is not None:
            self._unsubscribe = self.channel.subscribe(TOPIC, self._hear)
            self._ask()
        self._tell_groups()

    def stop(self) -> None:
        """Fall silent."""
        self._unsubscribe()
        for call in (self._call, self._asking, self._groups, *self._repeats):
            if call is not None and call.active():
                call.cancel()

    def attach(self) -> None:
        """Pools have come or changed: listen to their tables too."""
        for pool in self._pools.values():
            if isinstance(pool.persistence, LearntPersistence):
                pool.persistence.table.told = self._teller(pool.name)

    def _teller(self, pool: str) -> Callable[[bytes, str], None]:
        def told(key: bytes, member: str) -> None:
            self._pending.setdefault(pool, []).append((key, member))
            if self._call is None or not self._call.active():
                self._call = self._reactor.callLater(GATHER_S, self._flush)

        return told

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        for pool, entries in pending.items():
            self._publish(pool, entries)
            self._tell(_sessions(pool, entries))
        for node, rest in list(self._sending.items()):
            for _ in range(PAYLOADS_PER_STEP):
                following = next(rest, None)
                if following is None:
                    del self._sending[node]
                    break
                self.channel.publish(TOPIC, following, to=node)
        if self._sending:
            self._call = self._reactor.callLater(GATHER_S, self._flush)

    def _publish(self, pool: str, entries: list[tuple[bytes, str]]) -> None:
        if self.channel is not None:
            for payload in payloads(pool, entries):
                self.channel.publish(TOPIC, payload)

    # Other processes of this node

    def hear(self, change: Mapping[str, Any]) -> None:
        """What another process of this node has learnt, or which groups it uses; the other nodes hear it too."""
        pool = self._pools[change["pool"]]
        if change["what"] == "sessions" and isinstance(pool.persistence, LearntPersistence):
            entries = [(bytes.fromhex(key), str(name)) for key, name in change["entries"]]
            for key, name in entries:
                pool.persistence.table.hear(key, name)
            self._publish(pool.name, entries)
        elif change["what"] == "groups" and isinstance(pool.persistence, GroupPersistence):
            used = bytes.fromhex(change["used"])
            pool.persistence.used_elsewhere(used, self._reactor.seconds())
            if self.channel is not None:
                self.channel.publish(TOPIC, bytes((GROUPS,)) + tag(pool.name) + used)

    def snapshot(self) -> Iterator[dict[str, Any]]:
        """Every learnt session, for a process that has just begun."""
        for pool in self._learnt():
            entries = list(pool.persistence.table.entries())
            for start in range(0, len(entries), SNAPSHOT_ENTRIES):
                yield _sessions(pool.name, entries[start : start + SNAPSHOT_ENTRIES])

    # A node that has just come

    def _learnt(self) -> list[Pool]:
        return [pool for pool in self._pools.values() if isinstance(pool.persistence, LearntPersistence)]

    def _ask(self) -> None:
        if self._answered or not self._learnt() or self._asked >= len(ASK_AFTER_S):
            return
        self.channel.publish(TOPIC, bytes((ASK,)))
        self._asking = self._reactor.callLater(ASK_AFTER_S[self._asked], self._ask)
        self._asked += 1

    def _everything(self) -> Iterator[bytes]:
        for pool in self._learnt():
            yield from payloads(pool.name, list(pool.persistence.table.entries()))

    # An operator's changes

    def tell_change(self, change: Mapping[str, Any]) -> None:
        """All other nodes shall do the same. Told three times, done once: a message may be lost."""
        if self.channel is None:
            return
        payload = bytes((CHANGE,)) + json.dumps({**change, "id": secrets.token_hex(8), "said": ""}).encode()
        self.channel.publish(TOPIC, payload)
        self._repeats = [call for call in self._repeats if call.active()]
        for delay in REPEAT_S:
            self._repeats.append(self._reactor.callLater(delay, self.channel.publish, TOPIC, payload))

    def _hear_change(self, payload: bytes) -> None:
        try:
            change = json.loads(payload[1:])
            known = change["id"]
        except (ValueError, KeyError, TypeError):
            raise BadSharing("change", "a change that cannot be read") from None
        if known not in self._changes:
            self._changes.append(known)
            try:
                self._changed(change)
            except (ValueError, KeyError, TypeError):
                raise BadSharing("change", "a change of another version") from None

    # Groups

    def _tell_groups(self) -> None:
        now = self._reactor.seconds()
        for pool in self._pools.values():
            if isinstance(pool.persistence, GroupPersistence) and any(
                member.draining for member in pool.members.values()
            ):
                used = pool.persistence.used_here(now)
                if self.channel is not None:
                    self.channel.publish(TOPIC, bytes((GROUPS,)) + tag(pool.name) + used)
                self._tell({"what": "groups", "pool": pool.name, "used": used.hex()})
        self._groups = self._reactor.callLater(GROUPS_EVERY_S, self._tell_groups)

    # Hearing

    def _pool(self, payload: bytes) -> Pool | None:
        wanted = payload[1 : 1 + TAG_OCTETS]
        return next((pool for pool in self._pools.values() if tag(pool.name) == wanted), None)

    def _hear(self, node: str, payload: bytes) -> None:
        kind = payload[0] if payload else 0
        if kind == ENTRIES:
            self._hear_entries(payload)
        elif kind == GROUPS:
            pool = self._pool(payload)
            if pool is not None and isinstance(pool.persistence, GroupPersistence):
                used = payload[1 + TAG_OCTETS :]
                pool.persistence.used_elsewhere(used, self._reactor.seconds())
                self._tell({"what": "groups", "pool": pool.name, "used": used.hex()})
        elif kind == CHANGE:
            self._hear_change(payload)
        elif kind == ASK:
            if any(len(pool.persistence.table) for pool in self._learnt()):
                self.channel.publish(TOPIC, bytes((OFFER,)), to=node)
        elif kind == OFFER:
            if not self._answered:
                self._answered = True
                self.channel.publish(TOPIC, bytes((SEND,)), to=node)
        elif kind == SEND:
            self._sending[node] = self._everything()
            if self._call is None or not self._call.active():
                self._call = self._reactor.callLater(GATHER_S, self._flush)
        else:
            raise BadSharing("kind", f"a payload of kind {kind}")

    def _hear_entries(self, payload: bytes) -> None:
        pool = self._pool(payload)
        if pool is None or not isinstance(pool.persistence, LearntPersistence):
            return  # another configuration than ours, for the moment of a change
        names = {tag(name): name for name in pool.members}
        table = pool.persistence.table
        heard = []
        for key, member in entries_of(payload):
            name = names.get(member)
            if name is not None:
                table.hear(key, name)
                heard.append((key, name))
        self._tell(_sessions(pool.name, heard))


def _sessions(pool: str, entries: list[tuple[bytes, str]]) -> dict[str, Any]:
    return {"what": "sessions", "pool": pool, "entries": [[key.hex(), name] for key, name in entries]}
