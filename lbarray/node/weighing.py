"""A node's weight: as the configuration has it, or as an operator has set it for now."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from lbarray.config.problems import nearest
from lbarray.console.actions import BadArgument, Refused
from lbarray.membership.requests import ArrayRequests

if typing.TYPE_CHECKING:
    from lbarray.node.service import NodeService

__all__ = ["Weighing"]

#: As ``array.nodes.NAME.weight`` is bounded.
HEAVIEST = 1000
_WHAT = "weigh"


class Weighing:
    """Takes orders to change weights from here and from other nodes.

    What is set by hand lasts until the node starts anew or takes up a configuration.

    :param changed: the weight is another now: all nodes have to hear of it.
    """

    log = Logger()

    def __init__(self, node: NodeService, requests: ArrayRequests, changed: Callable[[], None]) -> None:
        self._by_hand: int | None = None
        self._node = node
        self._requests = requests
        self._changed = changed
        requests.serve(_WHAT, self._asked)

    @property
    def weight(self) -> int:
        """Of this node, now."""
        return self.configured()[self._node.node_name] if self._by_hand is None else self._by_hand

    def configured(self) -> Mapping[str, int]:
        """What the configuration gives to every node."""
        return {name: node.weight for name, node in self._node.config.array.nodes.items()}

    def order(self, name: str | None, weight: int) -> Deferred[dict[str, object]]:
        """Give the node of this name (this one if none is given) a weight.

        :raises BadArgument: no weight can be that; :raises Refused: there is no such node.
        """
        _check(weight)
        own = self._node.node_name
        if name is None or name == own:
            self._set(weight)
            return succeed(_answer(own, weight))
        nodes = self._node.config.array.nodes
        if name not in nodes:
            raise Refused(f"there is no node {name}; {nearest(name, nodes)}")
        return self._requests.ask(name, _WHAT, b"%d" % weight).addCallback(lambda _: _answer(name, weight))

    def forget(self) -> None:
        """The configuration's weight holds again."""
        self._by_hand = None
        self._changed()

    def _asked(self, sender: str, payload: bytes) -> bytes:
        self.log.info(
            "node {sender} asks: weight {weight}", sender=sender, weight=payload[:20].decode("ascii", "replace")
        )
        if not payload.isdigit() or len(payload) > 9:
            raise Refused("this version knows weights in digits, and nothing else")
        _check(int(payload))
        self._set(int(payload))
        return b""

    def _set(self, weight: int) -> None:
        self._by_hand = weight
        self._changed()


def _check(weight: int) -> None:
    if not 1 <= weight <= HEAVIEST:
        advice = "; a node that shall get no new clients is drained" if weight == 0 else ""
        raise BadArgument(f"weight: found {weight}; accepted: 1 to {HEAVIEST}{advice}")


def _answer(name: str, weight: int) -> dict[str, object]:
    return {"node": name, "weight": weight, "said": f"node {name} has the weight {weight}, on all nodes"}
