"""Writes that leave at once.

Twisted collects what is written and sends it when the reactor says that the socket takes it: two changes of the
poll set and one more event per write. A proxy's writes nearly always fit, so they are tried on the spot; what does not
fit takes Twisted's way, with its back pressure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["make_eager"]


def make_eager(transport: Any) -> None:
    """From now on ``transport``, a TCP connection of Twisted's reactor, sends what it can within ``write``.

    Order is kept: while anything waits in its buffers, what is written waits behind it. Nothing is lost when
    the connection is: the error shows on Twisted's way.
    """
    if not hasattr(transport, "writeSomeData") or not hasattr(transport, "_tempDataLen"):
        return  # another kind of transport; it writes as it does
    later: Callable[[bytes], None] = transport.write
    send: Callable[[bytes], Any] = transport.writeSomeData

    def write(data: bytes) -> None:
        if (
            data
            and transport.connected
            and not (transport._tempDataLen or transport.dataBuffer or transport._writeDisconnected)
        ):
            sent = send(data)
            if sent.__class__ is int and sent > 0:
                if sent < len(data):
                    later(data[sent:])
                return
        later(data)

    def write_sequence(pieces: Iterable[bytes]) -> None:
        write(b"".join(pieces))

    transport.write = write
    transport.writeSequence = write_sequence
