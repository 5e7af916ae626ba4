"""Asking other nodes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from lbarray.errors import SystemRefused
from lbarray.membership.requests import GIVE_UP_S, REPEAT_S, ArrayRequests, NoAnswer, RefusedThere
from lbarray.testing import MemoryChannel


class Lossy:
    """A channel that loses messages when told to."""

    def __init__(self, channel: MemoryChannel) -> None:
        self.channel = channel
        self.lose = 0
        self.subscribe = channel.subscribe

    def publish(self, topic: str, payload: bytes, to: str | None = None) -> None:
        if self.lose:
            self.lose -= 1
        else:
            self.channel.publish(topic, payload, to)


class RequestTests(SynchronousTestCase):
    """One node asks another."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asking, self.answering = (Lossy(channel) for channel in MemoryChannel.array("a", "b"))
        self.a = ArrayRequests(clock=self.clock, channel=self.asking)
        self.b = ArrayRequests(clock=self.clock, channel=self.answering)
        self.done: list[tuple[str, bytes]] = []
        self.b.serve("echo", self.echo)

    def echo(self, sender: str, payload: bytes) -> bytes:
        self.done.append((sender, payload))
        return payload.upper()

    def test_answer(self) -> None:
        """What was asked is done there, and its result comes back."""
        self.assertEqual(self.successResultOf(self.a.ask("b", "echo", b"said")), b"SAID")
        self.assertEqual(self.done, [("a", b"said")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lost_request(self) -> None:
        """A request that is lost is sent again."""
        self.asking.lose = 2
        asked = self.a.ask("b", "echo", b"said")
        self.clock.pump([REPEAT_S] * 2)
        self.assertEqual(self.successResultOf(asked), b"SAID")

    def test_lost_answer(self) -> None:
        """When the answer is lost it is given again, and the thing is not done twice."""
        self.answering.lose = 2
        asked = self.a.ask("b", "echo", b"said")
        self.clock.pump([REPEAT_S] * 2)
        self.assertEqual(self.successResultOf(asked), b"SAID")
        self.assertEqual(len(self.done), 1)

    def test_nobody_there(self) -> None:
        """After three seconds of silence the asking node says so."""
        asked = self.a.ask("c", "echo")
        self.clock.pump([REPEAT_S] * round(GIVE_UP_S / REPEAT_S))
        self.assertIn("node c does not answer", str(self.failureResultOf(asked, NoAnswer).value))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """The reason why the other node would not is the one that it gave."""

        def refuse(sender: str, payload: bytes) -> bytes:
            raise SystemRefused("drain")

        self.b.serve("drain", refuse)
        self.assertIn("cannot drain", str(self.failureResultOf(self.a.ask("b", "drain"), RefusedThere).value))

    def test_unknown(self) -> None:
        """A node of another version says that it does not know what we want."""
        self.assertIn("unknown", str(self.failureResultOf(self.a.ask("b", "later"), RefusedThere).value))

    def test_stop(self) -> None:
        """Whoever waits when the node stops is told."""
        self.asking.lose = 1
        asked = self.a.ask("b", "echo")
        self.a.stop()
        self.failureResultOf(asked, NoAnswer)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cut_off(self) -> None:
        """A message that is no request does nothing."""
        for body in (b"", b"12345678", b"12345678echo", b"1234567"):
            self.asking.publish("ask", body, "b")
            self.asking.publish("answer", body, "b")
        self.assertEqual(self.done, [])
