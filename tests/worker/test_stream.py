"""Streams between real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from lbarray.worker.stream import Stream

reactor: Any = global_reactor


class Remembers(Protocol):
    """What happened."""

    transport: Any

    def __init__(self) -> None:
        self.got = b""
        self.lost: str | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason.type.__name__


@implementer(IHalfCloseableProtocol)
class Halves(Remembers):
    """Goes on when the peer has said all."""

    read_ended = False
    write_ended = False

    def readConnectionLost(self) -> None:
        self.read_ended = True

    def writeConnectionLost(self) -> None:
        self.write_ended = True


class Producer:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pauseProducing(self) -> None:
        self.said.append("pause")

    def resumeProducing(self) -> None:
        self.said.append("resume")

    def stopProducing(self) -> None:
        self.said.append("stop")


class StreamTests(TestCase):
    """The transport of all connections."""

    def setUp(self) -> None:
        self.open: list[Stream] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean()))

    async def clean(self) -> None:
        for stream in self.open:
            stream.abortConnection()
        await deferLater(reactor, 0.01)

    def stream(self, protocol: Any) -> tuple[Any, socket.socket]:
        """A stream with this protocol, and the other end's socket."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.addCleanup(theirs.close)
        stream = Stream(ours, reactor, protocol)
        self.open.append(stream)
        stream.open()
        return stream, theirs

    async def until(self, true: Any) -> None:
        for _ in range(500):
            if true():
                return
            await deferLater(reactor, 0.005)
        raise AssertionError("it did not happen")

    async def test_provides(self) -> None:
        """It is a TCP transport to any protocol."""
        stream, _ = self.stream(Remembers())
        verifyObject(ITCPTransport, stream)

    async def test_both_ways(self) -> None:
        """What is written arrives, what arrives is told, the peer's end is heard."""
        protocol = Remembers()
        stream, theirs = self.stream(protocol)
        stream.write(b"one ")
        stream.writeSequence([b"two ", b"three"])
        self.assertEqual(theirs.recv(100), b"one two three")
        theirs.send(b"four")
        theirs.close()
        await self.until(lambda: protocol.lost)
        self.assertEqual((protocol.got, protocol.lost), (b"four", "ConnectionDone"))

    async def test_order_with_a_slow_peer(self) -> None:
        """What does not fit waits; what is written later waits behind it; all of it arrives before the end."""
        stream, theirs = self.stream(Remembers())
        pieces = [bytes([number % 256]) * 30_011 for number in range(100)]
        for piece in pieces:
            stream.write(piece)
        stream.loseConnection()
        self.assertGreater(stream.unsent_octets, 0)
        got = b""
        theirs.setblocking(False)
        for _ in range(2000):
            await deferLater(reactor, 0)
            try:
                data = theirs.recv(100_000)
            except BlockingIOError:
                continue
            if not data:
                break
            got += data
        self.assertEqual(got, b"".join(pieces))

    async def test_pieces(self) -> None:
        """Pieces of any size arrive in order, also when only some of them fit."""
        stream, theirs = self.stream(Remembers())
        pieces = [bytes([number]) * size for number, size in enumerate((10, 9000, 400_000, 3, 0, 70_000))]
        stream.writeSequence(pieces[:2])
        stream.writeSequence(pieces[2:])
        stream.loseConnection()
        self.assertGreater(stream.unsent_octets, 0)
        got = b""
        theirs.setblocking(False)
        for _ in range(2000):
            await deferLater(reactor, 0)
            try:
                data = theirs.recv(100_000)
            except BlockingIOError:
                continue
            if not data:
                break
            got += data
        self.assertEqual(got, b"".join(pieces))

    async def test_producer_of_a_slow_peer(self) -> None:
        """A producer is paused while much waits, and told when nothing does."""
        stream, theirs = self.stream(Remembers())
        producer = Producer()
        stream.registerProducer(producer, True)
        while not producer.said:
            stream.write(bytes(50_000))
        self.assertEqual(producer.said, ["pause"])
        theirs.setblocking(False)

        def drained() -> bool:
            try:
                theirs.recv(1 << 20)
            except BlockingIOError:
                pass
            return len(producer.said) > 1

        await self.until(drained)
        self.assertEqual((producer.said, stream.unsent_octets), (["pause", "resume"], 0))

    async def test_paused(self) -> None:
        """A paused stream reads nothing; resumed, it reads on."""
        protocol = Remembers()
        stream, theirs = self.stream(protocol)
        stream.pauseProducing()
        theirs.send(b"later")
        await deferLater(reactor, 0.02)
        self.assertEqual(protocol.got, b"")
        stream.resumeProducing()
        await self.until(lambda: protocol.got)
        self.assertEqual(protocol.got, b"later")

    async def test_never_lost_within_a_write(self) -> None:
        """A peer that has gone shows after ``write`` has returned."""
        protocol = Remembers()
        stream, theirs = self.stream(protocol)
        stream.pauseProducing()
        theirs.close()
        stream.write(b"x")
        stream.write(b"y")
        self.assertIsNone(protocol.lost)
        await self.until(lambda: protocol.lost)
        self.assertEqual(protocol.lost, "ConnectionLost")

    async def test_abort(self) -> None:
        """Aborted: nothing more is sent, and the protocol hears of it later."""
        protocol = Remembers()
        stream, _ = self.stream(protocol)
        stream.abortConnection()
        self.assertIsNone(protocol.lost)
        await self.until(lambda: protocol.lost)
        self.assertEqual(protocol.lost, "ConnectionAborted")

    async def test_half_close(self) -> None:
        """A protocol that can go on does so after the peer's last word, and closes its own side when it likes."""
        protocol = Halves()
        stream, theirs = self.stream(protocol)
        theirs.send(b"ask")
        theirs.shutdown(socket.SHUT_WR)
        await self.until(lambda: protocol.read_ended)
        stream.write(b"answer")
        stream.loseWriteConnection()
        self.assertTrue(protocol.write_ended)
        self.assertEqual((theirs.recv(100), theirs.recv(100)), (b"answer", b""))
        self.assertIsNone(protocol.lost)

    async def test_producer_hears_of_the_end(self) -> None:
        """Whose consumer has gone is stopped."""
        stream, theirs = self.stream(Remembers())
        producer = Producer()
        stream.registerProducer(producer, True)
        theirs.close()
        await self.until(lambda: producer.said)
        self.assertEqual(producer.said, ["stop"])
