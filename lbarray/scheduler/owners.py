"""Who may have a connection, and in which order they are asked: the second chance, as in ``bpf/choose.h``."""

from __future__ import annotations

from collections.abc import Mapping

from lbarray.scheduler.abi import NOBODY, PASSES
from lbarray.values import WorkerTarget

__all__ = ["Row", "list_owners", "next_owner"]

_ONCE_PASSED_ON = 2

#: (worker now, workers before, the newest first) by index.
Row = tuple[int, ...]


def list_owners(row: Row, second: Row | None) -> Row:
    """The workers that may have a connection of ``row``: who has it now and who had it before, the newest first; where
    there is a second row, each of that behind that of the same age, and once."""
    if second is None:
        return row
    behind = [NOBODY if index in row else index for index in second]
    return (*row[:2], *behind[:2], row[2], behind[2], row[3], behind[3])


def next_owner(
    owners: Row, self_index: int, sender: int | None, workers: Mapping[int, WorkerTarget], hop: int = 1
) -> WorkerTarget | None:
    """Who may have a connection behind this worker, and can be reached.

    Nodes may remember a row differently, for changes that come close together are one change to some and several to
    others, and while a change spreads some have not heard of it. So whoever has the row now is first, where it is plain
    that the packet has not been there; then come those who had it before this worker and the one that sent the packet;
    and where nobody is left, what another node has sent goes to whoever else had the row or has it: that node may know
    something that is not known here yet. But not for ever: what nobody holds would go round.

    :param owners: as this worker knows them; :param workers: those that are known, by index.
    :param sender: the worker that passed it on; :param hop: how it came (:class:`lbarray.scheduler.headers.Packet`).
    """
    behind = max((place + 1 for place, index in enumerate(owners) if index in (self_index, sender)), default=0)
    earlier = owners[behind:]
    if hop == _ONCE_PASSED_ON:  # it has been at the sender and here alone
        earlier = owners[:1] + earlier
    if 0 < hop <= PASSES:
        earlier += owners[1:] + owners[:1]
    known = (workers.get(index) for index in earlier if index != sender)
    return next((worker for worker in known if worker is not None and not worker.local), None)
