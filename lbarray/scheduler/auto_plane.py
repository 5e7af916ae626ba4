"""The plane that works here: the fastest one that the kernel, the driver and our rights allow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import SystemRefused
from lbarray.interfaces import IForwardingPlane
from lbarray.values import Address, PlaneCounters, PlaneFlow, PlaneService, WorkerCost, WorkerTarget

__all__ = ["AutoPlane", "Candidate"]


@attrs.frozen
class Candidate:
    """A plane that may be tried.

    :ivar make: makes it, not attached, as an :class:`lbarray.interfaces.IForwardingPlane`.
    :ivar unfit: why it should not even be tried here; empty where it should.
    :ivar remark: what the operator should know once it is chosen.
    """

    name: str
    make: Callable[[], Any]
    unfit: str = ""
    remark: str = ""


@implementer(IForwardingPlane)
class AutoPlane:
    """Attaches the first of several planes that will, says which and why, and is that plane from then on."""

    log = Logger()

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = tuple(candidates)
        self._plane: Any = None

    @property
    def name(self) -> str:
        """Of the plane that was chosen."""
        return "none" if self._plane is None else str(self._plane.name)

    def attach(self) -> None:
        refusals: list[SystemRefused] = []
        reasons: list[str] = []
        for candidate in self._candidates:
            if candidate.unfit:
                reasons.append(f"not {candidate.name}: {candidate.unfit}")
                continue
            plane = candidate.make()
            try:
                plane.attach()
            except SystemRefused as error:
                refusals.append(error)
                reasons.append(f"not {candidate.name}: {error.detail or error.tried}")
                continue
            self._plane = plane
            reasons += [candidate.remark] if candidate.remark else []
            self.log.info("packet plane: {name}{reasons}", name=plane.name, reasons="".join(f"; {r}" for r in reasons))
            return
        if len(refusals) == 1:
            raise refusals[0]
        raise SystemRefused(
            "attach a packet plane", detail="; ".join(reasons), advice=refusals[-1].advice if refusals else ""
        )

    def detach(self) -> None:
        if self._plane is not None:
            self._plane.detach()
            self._plane = None

    def set_active(self, vips: Collection[Address]) -> None:
        self._plane.set_active(vips)

    def set_services(self, services: Sequence[PlaneService]) -> None:
        self._plane.set_services(services)

    def set_workers(self, workers: Sequence[WorkerTarget]) -> None:
        self._plane.set_workers(workers)

    def apply(self, rows: bytes) -> None:
        self._plane.apply(rows)

    def set_costs(self, costs: Mapping[int, WorkerCost]) -> None:
        self._plane.set_costs(costs)

    def check(self) -> str:
        return "" if self._plane is None else str(self._plane.check())

    def counters(self) -> PlaneCounters:
        counted: PlaneCounters = self._plane.counters()
        return counted

    def flows(self, limit: int) -> Sequence[PlaneFlow]:
        flows: Sequence[PlaneFlow] = self._plane.flows(limit)
        return flows
