"""The array's channel: what the rooms of one node tell the same rooms of the others."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger
from zope.interface import implementer

from lbarray.errors import BadInput
from lbarray.interfaces import IArrayChannel
from lbarray.membership.datagram import BadDatagram
from lbarray.telemetry.counters import Counters

__all__ = ["LONGEST_PAYLOAD", "LONGEST_TOPIC", "ArrayChannel", "decode_message", "encode_message"]

LONGEST_TOPIC = 32
LONGEST_PAYLOAD = 1200


def encode_message(topic: str, payload: bytes) -> bytes:
    """``length of topic (1) | topic | payload``.

    :raises ValueError: one of them is too long, or the topic is empty.
    """
    name = topic.encode()
    if not 0 < len(name) <= LONGEST_TOPIC:
        raise ValueError(f"topic {topic!r} has {len(name)} octets; 1 to {LONGEST_TOPIC} are possible")
    if len(payload) > LONGEST_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} octets for {topic}; at most {LONGEST_PAYLOAD} are possible")
    return bytes((len(name),)) + name + payload


def decode_message(body: bytes) -> tuple[str, bytes]:
    """Topic and payload.

    :raises BadDatagram: cut off.
    """
    end = 1 + body[0] if body else 2
    try:
        topic = body[1:end].decode()
    except UnicodeDecodeError:
        topic = ""
    if end > len(body) or not topic:
        raise BadDatagram("no_message", "a message without a topic")
    return topic, body[end:]


@implementer(IArrayChannel)
class ArrayChannel:
    """Messages in the datagrams of the membership.

    :param send: sends a message's body to every peer, or to the one named; drops it while that cannot be.
    """

    log = Logger()

    def __init__(self, *, send: Callable[[bytes, str | None], None], counters: Counters) -> None:
        self._send = send
        self._counters = counters
        self._topics: dict[str, list[Callable[[str, bytes], None]]] = {}

    def publish(self, topic: str, payload: bytes, to: str | None = None) -> None:
        self._send(encode_message(topic, payload), to)

    def subscribe(self, topic: str, received: Callable[[str, bytes], None]) -> Callable[[], None]:
        listeners = self._topics.setdefault(topic, [])
        listeners.append(received)
        return lambda: listeners.remove(received)

    def deliver(self, sender: str, body: bytes) -> None:
        """A verified message of the node ``sender`` is here.

        :raises BadDatagram: it has no topic.
        """
        topic, payload = decode_message(body)
        listeners = self._topics.get(topic)
        self._counters.add("channel_messages" if listeners else "channel_unheard", topic)
        for received in list(listeners or ()):
            try:
                received(sender, payload)
            except BadInput as error:
                self._counters.add("channel_refused", error.reason)
                self.log.warn("message {topic} of node {sender}: {error}", topic=topic, sender=sender, error=error)
