"""Writes that leave at once, in order, and whole."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lbarray.worker.eager import make_eager


class Transport:
    """Takes as much at once as a test lets it; buffers as Twisted's does."""

    connected = True
    dataBuffer = b""

    def __init__(self, takes: int) -> None:
        self.takes = takes
        self.sent = b""
        self.buffered = b""
        self._tempDataLen = 0
        self._writeDisconnected = False

    def writeSomeData(self, data: bytes) -> Any:
        if self.takes < 0:
            return ConnectionResetError()
        self.sent += data[: self.takes]
        return min(len(data), self.takes)

    def write(self, data: bytes) -> None:
        self.buffered += data
        self._tempDataLen += len(data)

    def writeSequence(self, pieces: list[bytes]) -> None:
        raise AssertionError("replaced")


class EagerTests(SynchronousTestCase):
    """What goes where."""

    def made(self, takes: int) -> Transport:
        transport = Transport(takes)
        make_eager(transport)
        return transport

    def test_fits(self) -> None:
        """What the socket takes is gone."""
        transport = self.made(100)
        transport.write(b"abc")
        transport.writeSequence([b"de", b"f"])
        self.assertEqual((transport.sent, transport.buffered), (b"abcdef", b""))

    def test_rest_waits(self) -> None:
        """What does not fit goes the usual way, and so does all that follows: order is kept."""
        transport = self.made(2)
        transport.write(b"abc")
        transport.takes = 100
        transport.write(b"d")
        self.assertEqual((transport.sent, transport.buffered), (b"ab", b"cd"))

    def test_full_or_lost(self) -> None:
        """A full socket, a lost connection: the usual way, which knows what to do."""
        for takes in (0, -1):
            transport = self.made(takes)
            transport.write(b"abc")
            self.assertEqual(transport.buffered, b"abc")

    def test_not_connected(self) -> None:
        """After the end nothing is sent."""
        transport = self.made(100)
        transport.connected = False
        transport.write(b"abc")
        self.assertEqual(transport.sent, b"")

    def test_other_transports(self) -> None:
        """What is no socket of the reactor stays as it is."""
        other = object()
        make_eager(other)
