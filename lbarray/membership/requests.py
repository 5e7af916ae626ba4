"""Asking another node to do something, over the channel of datagrams: repeated until answered, done once."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from lbarray.errors import ArrayError
from lbarray.membership.datagram import BadDatagram

__all__ = ["ArrayRequests", "NoAnswer", "RefusedThere"]

#: Seconds between two tries, and until nobody waits any more.
REPEAT_S = 0.25
GIVE_UP_S = 3.0
#: Answers that a node remembers, for requests that come again.
REMEMBER = 256
_ID = 8
_ASK, _ANSWER = "ask", "answer"
_DONE, _REFUSED = b"+", b"-"


class NoAnswer(ArrayError):
    """A node that was asked something did not answer. Whether it did what it was asked is not known."""

    def __init__(self, node: str, what: str) -> None:
        super().__init__(node, what)
        self.node = node
        self.what = what

    def __str__(self) -> str:
        return (
            f"node {self.node} does not answer ({self.what}); is it running, and does it hear us? "
            "lbarray status says who is missing"
        )


class RefusedThere(ArrayError):
    """Another node would not do what it was asked. The text is its own."""


@attrs.define
class _Waiting:
    answered: Deferred[bytes]
    node: str
    what: str
    body: bytes
    deadline: float
    call: IDelayedCall | None = None


class ArrayRequests:
    """Requests to and from the other nodes.

    :param channel: an :class:`lbarray.interfaces.IArrayChannel`.
    """

    def __init__(self, *, clock: Any, channel: Any) -> None:
        self._clock = clock
        self._channel = channel
        self._handlers: dict[str, Callable[[str, bytes], bytes]] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._answers: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        channel.subscribe(_ASK, self._asked)
        channel.subscribe(_ANSWER, self._answered)

    def serve(self, what: str, handler: Callable[[str, bytes], bytes]) -> None:
        """Answer requests for ``what`` with ``handler(asking node, payload)``. It may raise :class:`ArrayError`."""
        self._handlers[what] = handler

    def ask(self, node: str, what: str, payload: bytes = b"") -> Deferred[bytes]:
        """The answer of ``node``; fails with :class:`NoAnswer` or :class:`RefusedThere`.

        :raises ValueError: it does not fit into one datagram.
        """
        number = secrets.token_bytes(_ID)
        body = number + what.encode() + b"\0" + payload
        answered: Deferred[bytes] = Deferred(lambda _: self._cancelled(number))
        deadline = self._clock.seconds() + GIVE_UP_S
        self._waiting[number] = _Waiting(answered, node, what, body, deadline)
        self._try(number)
        return answered

    def stop(self) -> None:
        """Nobody waits any more."""
        for number in list(self._waiting):
            waiting = self._forget(number)
            if waiting is not None:
                waiting.answered.errback(NoAnswer(waiting.node, waiting.what))

    def _forget(self, number: bytes) -> _Waiting | None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None and waiting.call is not None and waiting.call.active():
            waiting.call.cancel()
        return waiting

    def _cancelled(self, number: bytes) -> None:
        self._forget(number)

    def _try(self, number: bytes) -> None:
        waiting = self._waiting[number]
        if self._clock.seconds() >= waiting.deadline:
            self._forget(number)
            waiting.answered.errback(NoAnswer(waiting.node, waiting.what))
            return
        # Set first: in memory, the answer is here before ``publish`` returns.
        waiting.call = self._clock.callLater(REPEAT_S, self._try, number)
        self._channel.publish(_ASK, waiting.body, waiting.node)

    def _asked(self, sender: str, body: bytes) -> None:
        number, (what, zero, payload) = body[:_ID], body[_ID:].partition(b"\0")
        if len(number) != _ID or not zero:
            raise BadDatagram("no_message", "a request that is cut off")
        key = (sender, number)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answer(sender, what.decode("utf-8", "replace"), payload)
            self._answers[key] = answer
            if len(self._answers) > REMEMBER:
                self._answers.popitem(last=False)
        self._channel.publish(_ANSWER, number + answer, sender)

    def _answer(self, sender: str, what: str, payload: bytes) -> bytes:
        handler = self._handlers.get(what)
        if handler is None:
            return _REFUSED + f"{what[:40]!r} is unknown to this version".encode()
        try:
            return _DONE + handler(sender, payload)
        except ArrayError as error:
            return _REFUSED + str(error).encode()[:1000]

    def _answered(self, sender: str, body: bytes) -> None:
        waiting = self._waiting.get(body[:_ID])
        if waiting is None or waiting.node != sender:
            return  # late, or already answered
        self._forget(body[:_ID])
        mark, payload = body[_ID : _ID + 1], body[_ID + 1 :]
        if mark == _DONE:
            waiting.answered.callback(payload)
        else:
            waiting.answered.errback(RefusedThere(payload.decode("utf-8", "replace")))
