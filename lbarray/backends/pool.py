"""Pools and their members: counted, stored connections and all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lbarray.backends.connections import IdleConnections
from lbarray.backends.health import Health
from lbarray.backends.persistence import CookiePersistence
from lbarray.values import BackendAddress, BackendState

__all__ = ["Member", "Pool"]


class Member:
    """One back end of a pool, as it is now.

    :ivar weight: its share; :ivar outstanding: requests in hand.
    :ivar draining: gets no new clients; those with its cookie still come.
    """

    __slots__ = (
        "address",
        "draining",
        "failures",
        "health",
        "idle",
        "outstanding",
        "requests",
        "token",
        "weight",
    )

    def __init__(self, *, address: BackendAddress, weight: int, health: Health, idle: IdleConnections) -> None:
        self.address = address
        self.weight = weight
        self.health = health
        self.idle = idle
        self.outstanding = 0
        self.requests = 0
        self.failures = 0
        self.draining = False
        self.token = b""

    @property
    def state(self) -> BackendState:
        """What the operator sees."""
        if self.draining and self.health.serves:
            return BackendState.DRAINING
        return self.health.state


class Pool:
    """Members that serve the same content.

    :param policy: an :class:`lbarray.interfaces.IBalancePolicy`.
    """

    def __init__(
        self, *, name: str, members: Sequence[Member], policy: Any, persistence: CookiePersistence | None
    ) -> None:
        self.name = name
        self.members = {member.address.name: member for member in members}
        self.policy = policy
        self.persistence = persistence
        self._by_token: dict[bytes, Member] = {}
        if persistence is not None:
            for member in members:
                member.token = persistence.token(member.address)
                self._by_token[member.token] = member
        self._fit: list[Member] = []
        self.refresh()

    def refresh(self) -> None:
        """Health, draining or weights changed: find out anew who may have new requests."""
        self._fit = [member for member in self.members.values() if member.health.serves and not member.draining]

    def bound_to(self, tokens: Sequence[bytes]) -> Member | None:
        """The member that one of these cookie values names, if it can serve."""
        for token in tokens:
            member = self._by_token.get(token)
            if member is not None and member.health.serves:
                return member
        return None

    def choose(self, tried: Sequence[Member], key: bytes = b"") -> Member | None:
        """A member for a new request that is not one of ``tried``; ``None`` when there is none."""
        fit = self._fit
        if tried:
            fit = [member for member in fit if member not in tried]
        if not fit:
            return None
        chosen: Member = self.policy.choose(fit, key) if len(fit) > 1 else fit[0]
        return chosen
