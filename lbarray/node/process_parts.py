"""Where clients are served by processes of their own: what the node process has of them."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from lbarray.backends.service import BackendsService
from lbarray.config.model import Config
from lbarray.node.worker_parts import listener_specs
from lbarray.rewrite.service import RewriteService
from lbarray.telemetry.counters import Counters
from lbarray.values import HashBy, ServiceId
from lbarray.worker.processes.groups import Offered
from lbarray.worker.processes.parent import WorkerProcesses
from lbarray.worker.served import ListenerSpec, make_store

__all__ = ["Instructions", "SharedState", "make_processes", "process_count", "process_settings", "steered_prefix"]

#: Bits of an IPv6 address that make one client for the limits.
CLIENT_PREFIX6 = 64


@attrs.frozen
class Instructions:
    """What a worker process is given: pickled, from a parent to its child on one machine.

    :ivar places: the services in the order of the listening sockets.
    :ivar processes: how many there are of them.
    """

    config: Config
    node_name: str
    secret: bytes
    places: tuple[ServiceId, ...]
    processes: int


class SharedState:
    """What the processes of a node tell each other: of its back ends, and which hosts of the CDN live.

    Only the node process asks any of them how they are.
    """

    def __init__(self, backends: BackendsService, rewriting: RewriteService) -> None:
        self._backends = backends
        self._rewriting = rewriting

    def snapshot(self) -> list[dict[str, Any]]:
        """All that a process needs to hear that has just begun."""
        return [*self._backends.snapshot(), *self._rewriting.snapshot()]

    def subscribe(self, tell: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call ``tell`` with each change from now on. Returns a callable that ends it."""
        ends = [self._backends.subscribe(tell), self._rewriting.subscribe(tell)]

        def end() -> None:
            for each in ends:
                each()

        return end

    def hear(self, change: Mapping[str, Any]) -> None:
        """Do what a change of another process says."""
        if change["what"] == "cdn":
            self._rewriting.hear(change)
        else:
            self._backends.hear(change)


def process_count(config: Config) -> int:
    """How many worker processes a node has; 0: it serves in its own reactor, as it does by itself on one processor."""
    wanted = config.worker.processes
    if wanted != "auto":
        return int(wanted)
    processors = len(os.sched_getaffinity(0))
    return processors if processors > 1 else 0


def make_processes(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    secret: bytes,
    backends: BackendsService,
    rewriting: RewriteService,
    counters: Counters,
    changed: Callable[[], None],
) -> WorkerProcesses:
    """The processes of ``worker.processes``."""
    return WorkerProcesses(
        reactor=reactor,
        command=[sys.executable, "-m", "lbarray.worker_process"],
        shared=SharedState(backends, rewriting),
        counters=counters,
        changed=changed,
        **process_settings(config=config, node_name=node_name, secret=secret, counters=counters),
    )


def process_settings(*, config: Config, node_name: str, secret: bytes, counters: Counters) -> dict[str, Any]:
    """What of a configuration the processes follow: at the start, and by ``reconfigure`` while they run."""
    places = tuple(config.service_id(name) for name in config.services)
    # Where "auto" finds one processor now, a node that serves by processes keeps one.
    count = max(1, process_count(config))
    return {
        "count": count,
        "blob": pickle.dumps(Instructions(config, node_name, secret, places, count)),
        "offered": offered_services(config, node_name, counters),
        "grace_s": config.worker.stop_grace,
        "watchdog_s": config.worker.watchdog,
    }


def offered_services(config: Config, node_name: str, counters: Counters) -> list[Offered]:
    """The services as the node process needs to know them."""
    return [
        Offered(
            name=spec.name,
            service_id=spec.service_id,
            prefix=steered_prefix(config, spec),
            mss=spec.mss,
            check=(lambda spec=spec: make_store(spec, (), counters, warn=False)) if spec.tls is not None else None,  # type: ignore[misc]
        )
        for spec in listener_specs(config, node_name)
    ]


def steered_prefix(config: Config, spec: ListenerSpec) -> int | None:
    """How many bits of a client's address choose its process; ``None``: the whole connection does.

    As the scheduler hashes, so do we: who comes back to the node comes back to the process. Where something is limited
    by client, the process that counts must see all of a client in any case.
    """
    service = config.plane_service(spec.name)
    worker = config.worker
    prefix = service.prefix6 if spec.service_id.address.version == 6 else service.prefix4
    if service.hash_by is HashBy.CLIENT:
        return prefix
    limited = worker.client_connections or worker.client_requests or (spec.tls and spec.tls.handshakes_per_second)
    if not limited:
        return None
    return CLIENT_PREFIX6 if spec.service_id.address.version == 6 else 32
