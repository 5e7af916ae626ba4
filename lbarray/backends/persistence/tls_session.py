"""The client's TLS session, learnt from its handshakes."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from lbarray.backends.keys import address_key
from lbarray.backends.persistence.learnt import KEY_OCTETS, LearntPersistence, SessionTable
from lbarray.http.events import RequestHead, ResponseHead
from lbarray.interfaces import IPersistence
from lbarray.values import ClientAddress

__all__ = ["TlsSessionPersistence"]


@implementer(IPersistence)
class TlsSessionPersistence(LearntPersistence):
    """Brings a client that takes its TLS session up again to the back end that it was at.

    Whatever tickets a handshake gives out are remembered with the back end of the connection's first request, and a
    client that comes back with one of them belongs there; the tickets of its new connection are then remembered too.
    So a session is followed through the chain of tickets of TLS 1.3 and by the one ticket or id of TLS 1.2,
    at any node or process, since a ticket is known by its octets and need not be opened.

    A connection without sessions (a client that wants none, no TLS) is known by the client's address.

    A ticket is seen on the wire by others, and proves nothing: who brings somebody else's gets the same back end.

    :param prefix4: clients of one IPv4 network of this length have one address; ``prefix6`` likewise.
    """

    def __init__(self, *, table: SessionTable, seed: bytes, prefix4: int = 32, prefix6: int = 64) -> None:
        LearntPersistence.__init__(self, table=table, seed=seed)
        self._prefix4 = prefix4
        self._prefix6 = prefix6

    def find(self, request: RequestHead, client: ClientAddress) -> tuple[Any | None, bytes]:
        session = client.session
        if session is None or not (session.issued or session.presented):
            keys: tuple[bytes, ...] = (self._key(address_key(client.host, self._prefix4, self._prefix6)),)
        else:
            # The latest first: should a session have moved on, its new tickets know of that.
            keys = (*session.issued, *session.presented)
        # All of them are looked at, since being looked at keeps them: the client may come back with any.
        names = [self.table.get(key) for key in keys]
        for name in names:
            member = self._by_name.get(name) if name is not None else None
            if member is not None and member in self._serving:
                return member, b"" if all(other == name for other in names) else b"".join(keys)
        return None, b"".join(keys)

    def answered(self, member: Any, found: bool, mark: bytes, response: ResponseHead, secure: bool) -> None:
        for at in range(0, len(mark), KEY_OCTETS):
            self.table.learn(mark[at : at + KEY_OCTETS], member.address.name)
