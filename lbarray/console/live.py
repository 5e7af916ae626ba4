"""Server-sent events: the status each second and what happens as it happens, to whoever looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.http import Request
from twisted.web.server import NOT_DONE_YET

from lbarray.console.view import NodeView
from lbarray.telemetry.events import Event

__all__ = ["LiveFeed"]

STATUS_EVERY_S = 1.0
#: Who looks costs memory; more than a control room's worth is somebody who forgot to hang up.
MAX_LISTENERS = 64
#: Octets that may wait for a slow reader before it is dropped.
MAX_WAITING = 1 << 20


class LiveFeed:
    """One for each node: the status is gathered once for all who listen, and not at all when nobody does."""

    log = Logger()

    def __init__(self, view: NodeView, reactor: Any) -> None:
        self._view = view
        self._listeners: set[Request] = set()
        self._loop = LoopingCall(self._status)
        self._loop.clock = reactor
        self._unsubscribe: Callable[[], None] = lambda: None

    def listen(self, request: Request) -> int | None:
        """Send to this request until it ends; ``None`` when there are too many already."""
        if len(self._listeners) >= MAX_LISTENERS:
            return None
        for name, value in (("content-type", "text/event-stream"), ("cache-control", "no-store")):
            request.setHeader(name.encode(), value.encode())
        channel: Any = request.channel
        channel.setTimeout(None)  # it is for those who ask, not for those who listen
        for event in self._view.events.since()[-50:]:
            request.write(_event(event))
        request.write(self._whole_status())
        self._listeners.add(request)
        request.notifyFinish().addBoth(self._gone, request)
        if not self._loop.running:
            self._unsubscribe = self._view.events.subscribe(self._happened)
            self._loop.start(STATUS_EVERY_S, now=False)
        return NOT_DONE_YET

    def _gone(self, _: object, request: Request) -> None:
        self._listeners.discard(request)
        if not self._listeners and self._loop.running:
            self._loop.stop()
            self._unsubscribe()

    def close(self) -> None:
        """The node stops."""
        for request in list(self._listeners):
            request.finish()

    def _whole_status(self) -> bytes:
        return b"event: status\ndata: %b\n\n" % json.dumps(self._view.status(), default=str).encode()

    def _status(self) -> None:
        try:
            octets = self._whole_status()
        except Exception:
            self.log.failure("the status could not be gathered")
            return
        self._send(octets)

    def _happened(self, event: Event) -> None:
        self._send(_event(event))

    def _send(self, octets: bytes) -> None:
        for request in list(self._listeners):
            if _waiting(request) > MAX_WAITING:
                request.loseConnection()
            else:
                request.write(octets)


def _event(event: Event) -> bytes:
    return b"event: happened\nid: %d\ndata: %b\n\n" % (event.number, json.dumps(attrs.asdict(event)).encode())


def _waiting(request: Request) -> int:
    """Octets that the reader has not taken yet."""
    transport: Any = request.channel and request.channel.transport
    transport = getattr(transport, "transport", transport)
    return len(getattr(transport, "dataBuffer", b"")) + getattr(transport, "_tempDataLen", 0)
