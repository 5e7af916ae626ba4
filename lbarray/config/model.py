"""The whole configuration as one frozen value."""

from __future__ import annotations

from functools import lru_cache

import attrs

from lbarray.config.access_log import AccessLog
from lbarray.config.array import Array, Membership, Node
from lbarray.config.bgp import Bgp
from lbarray.config.cdn import Cdn
from lbarray.config.console import Console
from lbarray.config.failover import Failover
from lbarray.config.filters import Filter
from lbarray.config.logs import Log
from lbarray.config.pools import Pool
from lbarray.config.process import Process
from lbarray.config.routes import Route
from lbarray.config.scalars import Name
from lbarray.config.scheduler import Scheduler
from lbarray.config.services import Service, Worker
from lbarray.config.tracing import Tracing
from lbarray.values import Address, HashBy, PlaneService, ServiceId

__all__ = ["Config"]


@lru_cache(maxsize=1024)
def _service_id(address: Address, port: int) -> ServiceId:
    """The same object for the same place: each request finds its routes by it, without comparing addresses."""
    return ServiceId(address, port)


@attrs.frozen
class Config:
    """What one TOML file says. Sections left out have their defaults."""

    array: Array = attrs.field(factory=Array)
    failover: Failover = attrs.field(factory=Failover)
    bgp: Bgp = attrs.field(factory=Bgp)
    membership: Membership = attrs.field(factory=Membership)
    scheduler: Scheduler = attrs.field(factory=Scheduler)
    services: dict[Name, Service] = attrs.field(factory=dict)
    pools: dict[Name, Pool] = attrs.field(factory=dict)
    routes: tuple[Route, ...] = ()
    cdn: Cdn | None = None
    filters: tuple[Filter, ...] = ()
    worker: Worker = attrs.field(factory=Worker)
    console: Console = attrs.field(factory=Console)
    access_log: AccessLog = attrs.field(factory=AccessLog)
    log: Log = attrs.field(factory=Log)
    tracing: Tracing = attrs.field(factory=Tracing)
    process: Process = attrs.field(factory=Process)

    @property
    def standalone(self) -> bool:
        """One node, no VIP, no neighbours."""
        return not self.array.nodes

    def interface_of(self, node: Node) -> str:
        """The interface on which this node meets the array."""
        return node.interface or self.array.interface

    def service_id(self, name: str) -> ServiceId:
        """Where the service of this name is offered."""
        service = self.services[name]
        address: Address | None = service.vip or service.address
        if address is None:  # refused by the checks, so never in a loaded configuration
            raise ValueError(f"services.{name} has no address")
        return _service_id(address, service.port)

    def plane_service(self, name: str) -> PlaneService:
        """The service of this name as forwarding planes know it."""
        service = self.services[name]
        chosen = service.hash or ("client" if service.tls else "connection")
        hash_by = HashBy.CLIENT if chosen == "client" else HashBy.CONNECTION
        return PlaneService(
            id=self.service_id(name),
            hash_by=hash_by,
            prefix4=service.hash_prefix4,
            prefix6=service.hash_prefix6,
            least_loaded=service.least_loaded and hash_by is HashBy.CONNECTION,
        )
