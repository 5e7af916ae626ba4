"""One worker process of a node. Started by the node process, never by hand: ``python -m lbarray.worker_process``."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys
import time
from typing import Any

from lbarray.errors import ArrayError

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Serve until told to stop.

    :param arguments: the place of this process, the place of its count of connections, and how many listening sockets
        it has.
    """
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor

    from lbarray.daemon.privileges import only_serve
    from lbarray.kernel.descriptors import raise_descriptor_limit
    from lbarray.node.child_parts import ChildParts
    from lbarray.node.process_parts import Instructions
    from lbarray.worker.loop import make_lean
    from lbarray.worker.processes.child import ChildFactory
    from lbarray.worker.processes.counts import ConnectionCounts
    from lbarray.worker.processes.process import BLOB_FD, CONTROL_FD, COUNTS_FD, FIRST_LISTENER_FD

    # A terminal and a service manager send these to all processes; the node process says what is to be done.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    place, slot, count = (int(each) for each in arguments)
    with os.fdopen(BLOB_FD, "rb") as blob:
        instructions: Instructions = pickle.load(blob)  # written by our own parent process
    loop: Any = reactor
    vars(loop)["seconds"] = time.monotonic
    make_lean(loop)
    raise_descriptor_limit()
    only_serve()
    sockets = [socket.socket(fileno=FIRST_LISTENER_FD + number) for number in range(count)]
    counts = ConnectionCounts(COUNTS_FD, slot) if slot >= 0 else None
    os.close(COUNTS_FD)
    try:
        parts = ChildParts(reactor=loop, place=place, instructions=instructions, sockets=sockets, counts=counts)
    except ArrayError as error:
        sys.stderr.write(f"lbarray: worker process {place}: {error}\n")
        raise SystemExit(1) from None
    control: Any = socket.socket(fileno=CONTROL_FD)
    control.setblocking(False)
    loop.adoptStreamConnection(control.fileno(), socket.AF_UNIX, ChildFactory(parts.end))
    control.close()
    # What is here now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    loop.run(installSignalHandlers=False)


if __name__ == "__main__":
    main(sys.argv[1:])
