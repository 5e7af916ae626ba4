"""All of one worker process."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import globalLogBeginner

from lbarray.config.model import Config
from lbarray.node.backend_parts import backends_settings, make_backends
from lbarray.node.process_parts import Instructions, SharedState, steered_prefix
from lbarray.node.rewriting import rewriting_settings
from lbarray.node.worker_parts import make_access_log, make_rewriting, make_tracing, make_worker, worker_settings
from lbarray.telemetry.counters import Counters
from lbarray.telemetry.lag import ReactorLag
from lbarray.worker.processes.child import ChildEnd
from lbarray.worker.processes.counts import ConnectionCounts
from lbarray.worker.served import ListenerSpec

__all__ = ["ChildParts"]


class ChildParts:
    """All of one worker process.

    :param sockets: that it listens on, in the order of the instructions' places.
    :param counts: of the connections of all processes of the node.
    :raises ArrayError: it cannot be built.
    """

    def __init__(
        self,
        *,
        reactor: Any,
        place: int,
        instructions: Instructions,
        sockets: Sequence[socket.socket],
        counts: ConnectionCounts | None = None,
    ) -> None:
        self.counters = Counters()
        self._reactor = reactor
        self._instructions = instructions
        config = self._config = _unwatched(instructions.config)
        self.backends = make_backends(
            reactor=reactor, config=config, secret=instructions.secret, counters=self.counters
        )
        self.rewriting = make_rewriting(reactor=reactor, config=config, counters=self.counters)
        self._shared = SharedState(self.backends, self.rewriting)
        self._coming: dict[tuple[str, int], socket.socket] = {}
        self._sockets = dict(zip(instructions.places, sockets, strict=True))
        self.worker = make_worker(
            reactor=reactor,
            config=config,
            node_name=instructions.node_name,
            backends=self.backends,
            rewriting=self.rewriting,
            counters=self.counters,
            listening=self._listening,
            counts=counts,
            share=self._share,
        )
        self._lag = ReactorLag(reactor)
        self._used = (time.monotonic(), time.process_time())
        self._last_cpu = 0.0
        self.end = ChildEnd(
            reactor=reactor,
            start=self._start,
            stop=self._stop,
            report=self._report,
            hear=self._shared.hear,
            reload=self.worker.reload_certificates,
            reopen=self.worker.reopen_logs,
            listen=self._listen,
            configure=self._configure,
        )
        self.backends.subscribe(self.end.tell)
        observer: Any = self.end.say
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)

    def _listening(self, spec: ListenerSpec) -> socket.socket:
        """A descriptor of its own, for whoever listens closes it. Not by ``dup``, which would make it blocking."""
        return socket.socket(fileno=os.dup(self._sockets[spec.service_id].fileno()))

    def _share(self, spec: ListenerSpec) -> ListenerSpec:
        """Our part of a limit that only holds for all processes together: where a client may be at any of them."""
        tls, config = spec.tls, self._instructions.config
        if tls is None or not tls.handshakes_at_once or steered_prefix(config, spec) is not None:
            return spec
        part = -(-tls.handshakes_at_once // max(1, self._instructions.processes))
        return attrs.evolve(spec, tls=attrs.evolve(tls, handshakes_at_once=part))

    def _start(self) -> None:
        self._lag.startService()
        self.backends.startService()
        self.rewriting.startService()
        self.worker.startService()

    def _stop(self) -> Deferred[Any]:
        stopped: Deferred[Any] = maybeDeferred(self.worker.stopService)
        stopped.addBoth(lambda _: self.rewriting.stopService())
        return stopped.addBoth(lambda _: self.backends.stopService())

    # Another configuration

    def _listen(self, address: str, port: int, listener: socket.socket) -> None:
        self._coming[address, port] = listener

    def _configure(self, blob: bytes) -> None:
        """As the node process does with its own parts.

        :raises ArrayError: it cannot be.
        """
        new: Instructions = pickle.loads(blob)  # written by our own parent process
        old, config = self._config, _unwatched(new.config)
        self._instructions = new
        coming, self._coming = self._coming, {}
        for place in new.places:
            listener = coming.pop((str(place.address), place.port), None)
            if listener is not None and self._sockets.setdefault(place, listener) is not listener:
                listener.close()
        if (config.cdn, config.filters) != (old.cdn, old.filters):
            self.rewriting.reconfigure(**rewriting_settings(config=config, counters=self.counters))
        self.worker.reconfigure(
            **worker_settings(config=config, node_name=new.node_name, rewriting=self.rewriting, share=self._share)
        )
        if config.access_log != old.access_log:
            self.worker.use_access_log(make_access_log(config=config, node_name=new.node_name, counters=self.counters))
        if config.tracing != old.tracing:
            self.worker.use_tracing(
                make_tracing(reactor=self._reactor, config=config, node_name=new.node_name, counters=self.counters)
            )
        self.backends.reconfigure(**backends_settings(reactor=self._reactor, config=config, secret=new.secret))
        self._config = config
        for gone in [place for place in self._sockets if place not in new.places]:
            self._sockets.pop(gone).close()

    # How it is

    def _report(self) -> dict[str, object]:
        memo = self.rewriting.status().get("memo")
        return {
            "connections": self.worker.connections,
            "services": self.worker.status(),
            "pools": self.backends.status(),
            "balancing": self.backends.load_status(),
            "counters": list(self.counters),
            "memo_octets": memo["octets"] if isinstance(memo, dict) else 0,
            "lag_s": round(self._lag.lag_s, 4),
            "cpu": round(self._cpu(), 3),
            "memory": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        }

    def _cpu(self) -> float:
        """Processor time as a share of the time since the report before, 0 to 1 (more with threads)."""
        now, used = time.monotonic(), time.process_time()
        then, used_then = self._used
        if now - then < 0.2:  # somebody asks between two reports
            return self._last_cpu
        self._used = (now, used)
        self._last_cpu = (used - used_then) / (now - then)
        return self._last_cpu


def _unwatched(config: Config) -> Config:
    """The node process asks back ends and the CDN how they are, and where, and tells."""
    return attrs.evolve(
        config,
        pools={name: attrs.evolve(pool, check=None, discover=None) for name, pool in config.pools.items()},
        cdn=attrs.evolve(config.cdn, check=None) if config.cdn is not None else None,
    )
