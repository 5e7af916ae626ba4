"""The application's own session, learnt from its responses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import attrs
from zope.interface import implementer

from lbarray.backends.keys import parameter
from lbarray.http.cookies import cookie_values
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IPersistence
from lbarray.values import ClientAddress

__all__ = ["KEY_OCTETS", "Entry", "LearntPersistence", "SessionTable"]

#: Octets of a session's hash: collisions are out of the question at any size of table that fits into memory.
KEY_OCTETS = 12


@attrs.define
class Entry:
    """Where a session lives. ``told_at``: when other nodes were told last; ``expires``: likewise in our clock."""

    member: str
    expires: float
    told_at: float


class SessionTable:
    """Sessions by hash, bounded and expiring: the least recently used goes first.

    :param told: called with (key, member's name) when other nodes should know.
    """

    def __init__(
        self,
        *,
        most: int,
        ttl_s: float,
        seconds: Callable[[], float],
        told: Callable[[bytes, str], None] = lambda key, name: None,
    ) -> None:
        self.most = most
        self.ttl_s = ttl_s
        self.told = told
        self._seconds = seconds
        # A plain dict finds its first entry slower and slower while first entries are taken out.
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> str | None:
        """The member's name; the session counts as used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._seconds()
        if entry.expires <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        entry.expires = now + self.ttl_s
        if now - entry.told_at > self.ttl_s / 4:
            entry.told_at = now
            self.told(key, entry.member)
        return entry.member

    def learn(self, key: bytes, member: str) -> None:
        """A response of ``member`` began this session, or goes on with it."""
        now = self._seconds()
        known = self._entries.pop(key, None)
        if known is not None and known.member == member and now - known.told_at <= self.ttl_s / 4:
            known.expires = now + self.ttl_s
            self._entries[key] = known
            return
        self._entries[key] = Entry(member, now + self.ttl_s, now)
        self._bound()
        self.told(key, member)

    def hear(self, key: bytes, member: str) -> None:
        """Another node has learnt it."""
        now = self._seconds()
        self._entries.pop(key, None)
        self._entries[key] = Entry(member, now + self.ttl_s, now)
        self._bound()

    def expire(self, now: float) -> int:
        """Forget old ones; how many."""
        entries = self._entries
        before = len(entries)
        # In order of their last use, so in order of their ends.
        while entries and next(iter(entries.values())).expires <= now:
            entries.popitem(last=False)
        return before - len(entries)

    def entries(self) -> Iterator[tuple[bytes, str]]:
        """All of them, the least recently used first: for a node that has just come."""
        return ((key, entry.member) for key, entry in list(self._entries.items()))

    def _bound(self) -> None:
        while len(self._entries) > self.most:
            self._entries.popitem(last=False)


@implementer(IPersistence)
class LearntPersistence:
    """Brings requests with a known session id to the back end that began the session.

    :param cookie: name of the application's cookie, such as ``JSESSIONID``; :param header: of a header field
        that has the id in requests and responses; :param query: of a parameter in the URL (also ``;name=``). The
        first that a request has counts; ids are learnt from cookie and header of responses.
    :param seed: of the hash under which ids are stored: the ids themselves are not.
    """

    def __init__(
        self, *, table: SessionTable, seed: bytes, cookie: str = "", header: str = "", query: str = ""
    ) -> None:
        self.table = table
        self._seed = seed[:64]
        self._cookie = cookie.encode()
        self._header = header.lower().encode()
        self._query = query.encode()
        self._by_name: dict[str, Any] = {}
        self._serving: Collection[Any] = ()
        self._expire_at = 0.0

    def update(self, members: Sequence[Any], serving: Collection[Any]) -> None:
        self._by_name = {member.address.name: member for member in members}
        self._serving = frozenset(serving)

    def _key(self, session: bytes) -> bytes:
        return blake2b(session, digest_size=KEY_OCTETS, key=self._seed).digest()

    def find(self, request: RequestHead, client: ClientAddress) -> tuple[Any | None, bytes]:
        session = b""
        if self._cookie and (values := cookie_values(request, self._cookie)):
            session = values[0]
        if not session and self._header:
            session = request.get(self._header) or b""
        if not session and self._query:
            session = parameter(request.target, self._query)
        if not session:
            return None, b""
        key = self._key(session)
        name = self.table.get(key)
        member = self._by_name.get(name) if name is not None else None
        return (member if member in self._serving else None), key

    def knows(self, request: RequestHead, client: ClientAddress) -> bool:
        return self.find(request, client)[0] is not None

    def answered(self, member: Any, found: bool, mark: bytes, response: ResponseHead, secure: bool) -> None:
        learnt = False
        for name, value in response.fields:
            size = len(name)
            if size == 10 and self._cookie and name.lower() == b"set-cookie":
                pair, _, _ = value.partition(b";")
                key, equals, session = pair.partition(b"=")
                if equals and key.strip() == self._cookie and (session := session.strip().strip(b'"')):
                    self.table.learn(self._key(session), member.address.name)
                    learnt = True
            elif self._header and size == len(self._header) and name.lower() == self._header and value:
                self.table.learn(self._key(value), member.address.name)
                learnt = True
        if mark and not found and not learnt:
            # A session that we did not know, or whose back end is gone: from now on it lives here.
            self.table.learn(mark, member.address.name)

    def tick(self, now: float) -> bool:
        if now >= self._expire_at:
            self._expire_at = now + self.table.ttl_s / 16
            self.table.expire(now)
        return False
