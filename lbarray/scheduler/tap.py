"""What an XDP program forwards or drops, which the kernel's own taps never see: for captures, on any machine."""

from __future__ import annotations

import os

from lbarray.errors import SystemRefused
from lbarray.kernel.attachments import xdp_on
from lbarray.kernel.libbpf import maps_of
from lbarray.kernel.perfbuffer import PerfBuffer
from lbarray.scheduler.abi import U32

__all__ = ["XdpTap"]

_SAMPLING = ".data.sampling"


class XdpTap:
    """Lets the packet program on an interface show what it forwards or drops, until :meth:`close`.

    Its node, another process, is not asked: the maps of the program are found through the kernel. Of a capture that is
    killed nothing remains but a look in vain for each packet that would have been shown.

    :param sample: one packet of so many.
    :raises SystemRefused: the XDP program on ``interface`` is not ours, or the kernel would not.
    """

    def __init__(self, interface: str, sample: int) -> None:
        self._seen: list[tuple[bytes, int]] = []
        self._lost = 0
        self._shown: PerfBuffer | None = None
        # What shows the packets does so for as long as the descriptor is open with which it was told to.
        self._maps = maps_of(xdp_on(interface))
        try:
            if not {_SAMPLING, "shown"} <= self._maps.keys():
                raise SystemRefused(f"look behind the XDP program of {interface}", detail="it is not lbarray's")
            self._shown = PerfBuffer(self._maps["shown"], self._show, self._lose)
            self._maps[_SAMPLING].update(U32.pack(0), U32.pack(sample))
        except SystemRefused:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there is something to :meth:`read`."""
        return -1 if self._shown is None else self._shown.fileno()

    def read(self) -> list[tuple[bytes, int]]:
        """(frame, cut off after 2,048 octets; its whole length) of each that has come since."""
        if self._shown is not None:
            self._shown.consume()
        seen, self._seen = self._seen, []
        return seen

    def missed(self) -> int:
        """How many there was no room for, as far as was read."""
        return self._lost

    def close(self) -> None:
        """Idempotent."""
        if self._shown is not None:
            self._maps[_SAMPLING].update(U32.pack(0), U32.pack(0))
            self._shown.close()
            self._shown = None
        while self._maps:
            os.close(self._maps.popitem()[1].fd)

    def _show(self, report: bytes) -> None:
        (length,) = U32.unpack_from(report)
        self._seen.append((report[U32.size : U32.size + length], length))

    def _lose(self, count: int) -> None:
        self._lost += count
