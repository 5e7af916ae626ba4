"""Emptying nodes: ours, or another one that is asked to."""

from __future__ import annotations

import typing
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from lbarray.config.problems import nearest
from lbarray.console.actions import Refused

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["Draining"]

LOOK_S = 1.0
_WHAT = "drain"
_DRAIN, _SERVE, _FORCE = b"drain", b"serve", b"force"


class Draining(Service):
    """Takes orders to drain from here and from other nodes, and says when the node is empty.

    A node that is restarted takes clients again: draining is not remembered.
    """

    log = Logger()

    def __init__(self, node: NodeService) -> None:
        self._node = node
        self._empty = False
        self._loop = LoopingCall(self._look)
        self._loop.clock = node.reactor
        if node.membership is not None:
            node.membership.requests.serve(_WHAT, self._asked)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def order(self, name: str | None, draining: bool, force: bool) -> Deferred[dict[str, object]]:
        """Drain the node of this name (this one if none is given), or end that.

        :raises Refused: there is no such node, or nobody would be left to take clients.
        """
        node = self._node
        if name is None or name == node.node_name:
            self._begin(draining, force)
            return succeed(self.answer(node.node_name, draining))
        nodes = node.config.array.nodes
        if name not in nodes:
            raise Refused(f"there is no node {name}; {nearest(name, nodes)}")
        assert node.membership is not None
        order = _FORCE if force and draining else _DRAIN if draining else _SERVE
        asked = node.membership.requests.ask(name, _WHAT, order)
        return asked.addCallback(lambda _: self.answer(name, draining))

    def answer(self, name: str, draining: bool) -> dict[str, object]:
        """What the operator is told."""
        said = "takes no new clients; those that it has stay until they leave" if draining else "takes new clients"
        return {"node": name, "draining": draining, "said": f"node {name} {said}"}

    def progress(self) -> dict[str, object]:
        """For each node that drains: how many clients' connections remain, and whether it is empty."""
        nodes = {}
        membership = self._node.membership
        for report in membership.members() if membership is not None else ():
            if report.draining:
                left = report.load.connections
                nodes[report.name] = {"connections": left, "empty": left == 0}
        lines = [
            f"node {name} is empty"
            if not left["connections"]
            else f"node {name}: {left['connections']} connections left"
            for name, left in nodes.items()
        ]
        return {"nodes": nodes, "said": "\n".join(lines) or "no node is draining"}

    def _asked(self, sender: str, payload: bytes) -> bytes:
        self.log.info("node {sender} asks: {order}", sender=sender, order=payload.decode("ascii", "replace")[:20])
        if payload not in (_DRAIN, _SERVE, _FORCE):
            raise Refused("this version knows to drain, to serve and to force, and nothing else")
        self._begin(payload != _SERVE, payload == _FORCE)
        return b""

    def _begin(self, draining: bool, force: bool) -> None:
        node = self._node
        if draining and not node.draining and not force:
            others = any(
                report.name != node.node_name and report.accepting and not report.draining
                for report in (node.membership.members() if node.membership is not None else ())
            )
            if not others:
                raise Refused(
                    f"no other node takes clients: with {node.node_name} drained nobody would. "
                    "lbarray status says why the others do not; --force drains it all the same"
                )
        node.drain(draining)
        self._empty = False
        if draining and not self._loop.running and self.running:
            self._loop.start(LOOK_S, now=False)
        elif not draining and self._loop.running:
            self._loop.stop()

    def _look(self) -> None:
        left = self._connections()
        if left == 0 and not self._empty:
            self.log.info("node {name} is empty: it can be stopped", name=self._node.node_name)
        self._empty = left == 0

    def _connections(self) -> int:
        feedback: Any = self._node.feedback
        return feedback.load.connections if feedback is not None else 0
