"""Where clients are served by processes of their own: what the node process has of them, and what each of them has."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogBeginner

from lbarray.backends.service import BackendsService
from lbarray.config.model import Config
from lbarray.node.backend_parts import make_backends
from lbarray.node.worker_parts import listener_specs, make_rewriting, make_worker
from lbarray.telemetry.counters import Counters
from lbarray.values import HashBy, ServiceId
from lbarray.worker.processes.child import ChildEnd
from lbarray.worker.processes.parent import Offered, WorkerProcesses
from lbarray.worker.served import ListenerSpec, make_store

__all__ = ["ChildParts", "Instructions", "make_processes", "process_count", "process_settings"]


@attrs.frozen
class Instructions:
    """What a worker process is given: pickled, from a parent to its child on one machine.

    :ivar places: the services in the order of the listening sockets.
    """

    config: Config
    node_name: str
    secret: bytes
    places: tuple[ServiceId, ...]


def process_count(config: Config) -> int:
    """How many worker processes a node has; 0: it serves in its own reactor."""
    wanted = config.worker.processes
    return len(os.sched_getaffinity(0)) if wanted == "auto" else int(wanted)


def make_processes(
    *,
    reactor: Any,
    config: Config,
    node_name: str,
    secret: bytes,
    backends: BackendsService,
    counters: Counters,
    changed: Callable[[], None],
) -> WorkerProcesses:
    """The processes of ``worker.processes``."""
    return WorkerProcesses(
        reactor=reactor,
        count=process_count(config),
        command=[sys.executable, "-m", "lbarray.worker_process"],
        backends=backends,
        counters=counters,
        changed=changed,
        **process_settings(config=config, node_name=node_name, secret=secret, counters=counters),
    )


def process_settings(*, config: Config, node_name: str, secret: bytes, counters: Counters) -> dict[str, Any]:
    """What of a configuration the processes follow: at the start, and by ``reconfigure`` while they run."""
    places = tuple(config.service_id(name) for name in config.services)
    return {
        "blob": pickle.dumps(Instructions(config, node_name, secret, places)),
        "offered": offered_services(config, node_name, counters),
        "grace_s": config.worker.stop_grace,
    }


def offered_services(config: Config, node_name: str, counters: Counters) -> list[Offered]:
    """The services as the node process needs to know them."""
    return [
        Offered(
            name=spec.name,
            service_id=spec.service_id,
            prefix=_prefix(config, spec),
            mss=spec.mss,
            check=lambda spec=spec: make_store(spec, (), counters),  # type: ignore[misc]
        )
        for spec in listener_specs(config, node_name)
    ]


def _prefix(config: Config, spec: ListenerSpec) -> int | None:
    """As the scheduler hashes, so do we: who comes back to the node comes back to the process."""
    service = config.plane_service(spec.name)
    if service.hash_by is not HashBy.CLIENT:
        return None
    return service.prefix6 if spec.service_id.address.version == 6 else service.prefix4


class ChildParts:
    """All of one worker process.

    :raises ArrayError: it cannot be built.
    """

    def __init__(
        self, *, reactor: Any, place: int, instructions: Instructions, sockets: Sequence[socket.socket]
    ) -> None:
        config = instructions.config
        self.counters = Counters()
        # The node process asks the back ends how they are, and where, and tells.
        unwatched = attrs.evolve(
            config, pools={name: attrs.evolve(pool, check=None, discover=None) for name, pool in config.pools.items()}
        )
        self.backends = make_backends(
            reactor=reactor, config=unwatched, secret=instructions.secret, counters=self.counters
        )
        self.rewriting = make_rewriting(reactor=reactor, config=config, counters=self.counters)
        listening = dict(zip(instructions.places, sockets, strict=True))
        self.worker = make_worker(
            reactor=reactor,
            config=config,
            node_name=instructions.node_name,
            backends=self.backends,
            rewriting=self.rewriting,
            counters=self.counters,
            listening=lambda spec: listening[spec.service_id],
        )
        self.end = ChildEnd(
            reactor=reactor,
            start=self._start,
            stop=self._stop,
            report=self._report,
            hear=self.backends.hear,
            reload=self.worker.reload_certificates,
            reopen=self.worker.reopen_logs,
        )
        self.backends.subscribe(self.end.tell)
        observer: Any = self.end.say
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    def _start(self) -> None:
        self.backends.startService()
        self.rewriting.startService()
        self.worker.startService()

    def _stop(self) -> Deferred[Any]:
        stopped: Deferred[Any] = maybeDeferred(self.worker.stopService)
        stopped.addBoth(lambda _: self.rewriting.stopService())
        return stopped.addBoth(lambda _: self.backends.stopService())

    def _report(self) -> dict[str, object]:
        return {
            "connections": self.worker.connections,
            "services": self.worker.status(),
            "pools": self.backends.status(),
            "balancing": self.backends.load_status(),
            "counters": list(self.counters),
        }
