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
    :ivar retired: no longer a member; it has only the requests that it had.
    """

    __slots__ = (
        "address",
        "draining",
        "failures",
        "health",
        "idle",
        "outstanding",
        "requests",
        "retired",
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
        self.retired = False
        self.token = b""

    @property
    def state(self) -> BackendState:
        """What the operator sees."""
        if self.draining and self.health.serves:
            return BackendState.DRAINING
        return self.health.state

    def reconfigure(self, new: Member) -> None:
        """Take the settings of a member that is to be what this one is, and keep what has been seen and counted."""
        self.weight = new.weight
        self.health.rise, self.health.fall = new.health.rise, new.health.fall
        self.idle.reconfigure(new.idle)


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
        self._fit: list[Member] = []
        self._settle()

    def _settle(self) -> None:
        """Who is bound by which cookie, and who may have new requests."""
        self._by_token = {}
        if self.persistence is not None:
            for member in self.members.values():
                member.token = self.persistence.token(member.address)
                self._by_token[member.token] = member
        self.refresh()

    def reconfigure(self, new: Pool) -> list[Member]:
        """Become what ``new`` says, and keep the members that are in both; those that are not are returned."""
        old = self.members
        self.members = {}
        for name, member in new.members.items():
            same = old.get(name)
            if same is not None and same.address == member.address:
                same.reconfigure(member)
                self.members[name] = same
            else:
                self.members[name] = member
        if type(self.policy) is not type(new.policy):
            self.policy = new.policy
        self.persistence = new.persistence
        self._settle()
        return [member for member in old.values() if not self.has(member)]

    def has(self, member: Member) -> bool:
        """It belongs here, now."""
        return self.members.get(member.address.name) is member

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
