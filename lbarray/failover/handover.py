"""Moving VIPs on purpose, asked on any node: the owner hands over, or the node that shall have them claims them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from lbarray.errors import ArrayError, Unreadable
from lbarray.failover.service import FailoverService
from lbarray.values import Address, NodeReport

__all__ = ["BadRequest", "HandoverRefused", "Handovers"]

TOPIC = "handover"
#: Seconds between two looks at who has the VIPs, and until a request that found nobody has failed.
LOOK_S = 0.02
#: Requests of others that are remembered, so that none is carried out twice.
REMEMBERED = 64


class HandoverRefused(ArrayError):
    """The VIPs did not move, or cannot."""

    reason = "handover_refused"


class BadRequest(Unreadable):
    """A message of another version of this program. ``why`` is its counter's label."""

    reason = "handover"


class _Request:
    """A handover that somebody on this node waits for."""

    def __init__(self, vips: Sequence[Address], before: Mapping[Address, str], to: str | None, until: float) -> None:
        self.vips = tuple(vips)
        self.before = dict(before)
        self.to = to
        self.until = until
        self.done: Deferred[dict[str, object]] = Deferred()


class Handovers:
    """Carries requests between the nodes.

    :param channel: an :class:`lbarray.interfaces.IArrayChannel`.
    :param members: the living nodes, with the VIPs each of them owns.
    :param nodes: the names of all nodes of the configuration.
    """

    log = Logger()

    def __init__(
        self,
        *,
        clock: Any,
        channel: Any,
        failover: FailoverService,
        node_name: str,
        nodes: Sequence[str],
        members: Callable[[], Sequence[NodeReport]],
    ) -> None:
        self._clock = clock
        self._channel = channel
        self._failover = failover
        self._node_name = node_name
        self._nodes = tuple(nodes)
        self._members = members
        self._waiting: dict[str, _Request] = {}
        self._seen: list[str] = []
        channel.subscribe(TOPIC, self._received)

    def owners(self) -> dict[Address, str]:
        """Who owns each VIP, by what the nodes say of themselves."""
        return {vip: report.name for report in self._members() for vip in report.owned}

    def request(self, vip: Address | None = None, to: str | None = None) -> Deferred[dict[str, object]]:
        """Move ``vip`` (all of them without it) to the node ``to``, or to whoever is next in line.

        :returns: fires when they have moved: ``vips``, ``to`` and ``said``, a sentence.
        :raises HandoverRefused: it cannot be; as a failure too, when nobody took them.
        """
        routers = self._failover.routers_of(vip)
        if not routers:
            known = ", ".join(str(held.ip) for router in self._failover.routers.values() for held in router.spec.vips)
            raise HandoverRefused(f"no VIP {vip}; this array has {known}")
        alive = {report.name for report in self._members()}
        if to is not None and to not in alive:
            known = ", ".join(sorted(alive))
            kind = "is not alive" if to in self._nodes else "is no node of this array"
            raise HandoverRefused(f"{to} {kind}; alive are {known}")
        owners = self.owners()
        vips = [held.ip for router in routers for held in router.spec.vips]
        moving = [each for each in vips if owners.get(each) != to]
        if not moving or (to is None and not owners):
            raise HandoverRefused(
                f"{to} has {'them' if len(vips) > 1 else 'it'} already" if to else "no node owns a VIP now"
            )
        longest_s = max(router.spec.interval_s for router in routers)
        identity = secrets.token_hex(8)
        request = _Request(moving, owners, to, self._clock.seconds() + 5 * longest_s + 1.0)
        self._waiting[identity] = request
        payload = {"id": identity, "vips": [str(each) for each in moving], "to": to}
        self._channel.publish(TOPIC, json.dumps(payload).encode())
        self._seen.append(identity)
        self._carry_out(payload)
        self._clock.callLater(LOOK_S, self._look, identity)
        return request.done

    def _look(self, identity: str) -> None:
        request = self._waiting.get(identity)
        if request is None:
            return
        owners = self.owners()

        def is_left(vip: Address) -> bool:
            if request.to is not None:
                return owners.get(vip) != request.to
            return owners.get(vip) in (None, request.before.get(vip))  # between two owners nobody has it

        left = [vip for vip in request.vips if is_left(vip)]
        if not left:
            del self._waiting[identity]
            now = sorted({owners[vip] for vip in request.vips})
            said = f"{_listed(request.vips)} moved to {' and '.join(now)}"
            request.done.callback({"vips": [str(vip) for vip in request.vips], "to": now, "said": said})
        elif self._clock.seconds() >= request.until:
            self._refuse(identity, f"nobody took {_listed(left)}: the log of the node that should have says why")
        else:
            self._clock.callLater(LOOK_S, self._look, identity)

    def _refuse(self, identity: str, why: str) -> None:
        request = self._waiting.pop(identity, None)
        if request is not None:
            request.done.errback(HandoverRefused(why))

    def _received(self, sender: str, payload: bytes) -> None:
        try:
            said = json.loads(payload)
            identity, refused = said["id"], said.get("refused")
            if refused is None:
                [ip_address(vip) for vip in said["vips"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadRequest(
                "unreadable", f"a request of {sender} to hand over that this version cannot read"
            ) from None
        if refused is not None:
            self._refuse(identity, f"{sender}: {refused}")
        elif identity not in self._seen:
            self._seen.append(identity)
            del self._seen[:-REMEMBERED]
            self.log.info(
                "{sender} asks to hand over {vips} to {to}", sender=sender, vips=said["vips"], to=said.get("to")
            )
            why = self._carry_out(said)
            if why is not None:
                answer = {"id": identity, "refused": why}
                self._channel.publish(TOPIC, json.dumps(answer).encode(), sender)

    def _carry_out(self, payload: Mapping[str, Any]) -> str | None:
        """Do this node's part; why it cannot, or ``None``."""
        to = payload["to"]
        vips = [ip_address(vip) for vip in payload["vips"]]
        if to is None:
            for vip in vips:
                self._failover.step_down(vip)
            return None
        if to != self._node_name:
            return None
        for router in self._failover.routers.values():
            if not any(held.ip in vips for held in router.spec.vips):
                continue
            if router.machine.suspended:
                return "it is not fit to own VIPs: " + "; ".join(router.tracker.failing.values())
            if not router.take_over() and router.machine.owner != router.machine.source:
                return "the owner's priority is the highest there is: hand over without naming a node"
        return None


def _listed(vips: Sequence[Address]) -> str:
    return ", ".join(str(vip) for vip in vips if not vip.is_link_local)
